"""LightMBN on ResNet-50: `LMBN_r` of its repository, with the recipe of `lmbn`.

Herzog et al., Lightweight Multi-Branch Network for Person Re-Identification, ICIP 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax.methods import lmbn
from deskpro_jax.methods.lmbn import stream, streams, terms
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.check import check_resnet
from deskpro_jax.models.contract import Counts, PublishedNames, Recipe
from deskpro_jax.models.lmbn import PARTS, REDUCED_PARTS, SharedUnit, drop_top
from deskpro_jax.models.remat import run_block
from deskpro_jax.models.resnet import (
    EXPANSION,
    LIGHTMBN,
    Bottleneck,
    ResNetTail,
    ResNetTrunk,
    backbone_field,
    imagenet_names,
    label_of,
    resnet,
)
from deskpro_jax.models.streams import Streams
from deskpro_jax.models.stripes import pool, stripes

BRANCHES = ("global_branch", "partial_branch", "channel_branch")
__all__ = ["NAMES", "VARIANTS", "ResNetLightMBN", "build", "check", "network", "recipe", "stream", "streams", "terms"]


class ResNetLightMBN(nn.Module):
    """A trunk to layer3's first block and three branches; seven parts with necks, as in `LightMBN`."""

    num_classes: int
    backbone: str = "resnet50"
    feature_dim: int = 512
    drop_ratio: float = 0.33
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the network.

        Args:
            images: normalised; height and width are multiples of 32.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows and the top-drop block drops.
            valid: rows that count [batch], all of them if absent.

        Returns:
            outputs: `logits` [7, batch, classes], `features` before the necks and `embeddings` after them
                [7, batch, feature_dim], in the order of `PARTS`.
            intermediates: the last map of each branch by its name, `dropped` [batch, height / 32, width / 32, dim],
                and those of `ResNetTrunk`.
        """
        network, stats = resnet(self.backbone), layers.at_least_float32(self.dtype)
        trunk = ResNetTrunk(network, attention=self.attention, dtype=self.dtype, remat=self.remat, name="trunk")
        x, middle = trunk(images, train=train, valid=valid)
        maps = {}
        for branch, last_stride in zip(BRANCHES, (2, 1, 1), strict=True):
            tail = ResNetTail(network, last_stride, self.dtype, self.remat, name=branch)
            maps[branch] = tail(x, train=train, valid=valid)
        whole, partial, channel = maps.values()
        block = Bottleneck(network.features(4) // EXPANSION, dtype=self.dtype, name="drop_block")
        whole = run_block(block, whole, train=train, valid=valid, remat=self.remat)
        dropped = drop_top(whole, self.drop_ratio) if train else whole
        halves = jnp.split(pool(channel, "max"), 2, axis=-1)
        pooled = [
            *(pool(x, "max") for x in (whole, dropped, partial)),
            *(pool(stripe, "avg") for stripe in stripes(partial, 2)),
        ]
        shared = SharedUnit(self.feature_dim, stats, name="shared")(jnp.stack(halves), train=train, valid=valid)
        init = initialisers.kaiming_fan_out(network.features(4))  # by fan-in, as published
        features = []
        for part, x in enumerate(pooled):
            reduce = layers.Pointwise(self.feature_dim, dtype=stats, kernel_init=init, name=f"reduce_{part}")
            features.append(reduce(x))
        features += list(shared)
        embeddings, logits = [], []
        for part, x in enumerate(features):
            neck = layers.BatchNorm(frozen_bias=True, dtype=stats, name=f"neck_{part}")
            embeddings.append(neck(x, train=train, valid=valid))
            init = initialisers.normal(0.001)
            head = layers.Pointwise(self.num_classes, dtype=stats, kernel_init=init, name=f"classifier_{part}")
            logits.append(head(embeddings[-1]))
        outputs = {"logits": logits, "features": features, "embeddings": embeddings}
        named = {name: jnp.stack(values)[:, :, 0, 0] for name, values in outputs.items()}
        return named, {**middle, **maps, "dropped": dropped}


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> ResNetLightMBN:
    """Returns the network."""
    model = config.model
    return ResNetLightMBN(
        counts.identities, model.backbone, model.feature_dim, model.drop_ratio, attention, jnp.dtype(model.dtype)
    )


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe."""
    return Recipe(tuple(terms(config, stream(config))), label=label_of("trunk", *BRANCHES))


check = check_resnet


VARIANTS: dict[str, dict[str, object]] = {"lmbn_r": {**lmbn.RECIPE, "model.backbone": "resnet50"}}
DEBUG = {"model.backbone": "resnet14_x0_25"}


def _fields(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        **backbone_field(shapes, "backone.0.weight"),
        "model.feature_dim": shapes["reduction_0.reduction.weight"][0],
    }


# Name of each part's neck in the file, in the order of `PARTS`.
_NECKS = ("0", "drop", "1", "2", "3", "ch_0", "ch_1")
NAMES = (
    PublishedNames(
        "lmbn_r",
        (
            *("backone.6.conv1.weight", "global_branch.1.0.conv1.weight", "reduction_drop.reduction.weight"),
            "batch_drop_block.drop_batch_bottleneck.conv1.weight",
        ),
        rename=(
            *LIGHTMBN,
            *((rf"^reduce_{part}\.", f"reduction_{_NECKS[part]}.reduction.") for part in range(REDUCED_PARTS)),
            *((rf"^neck_{part}\.", f"reduction_{_NECKS[part]}.bn.") for part in range(len(PARTS))),
            *((rf"^classifier_{part}\.", f"reduction_{_NECKS[part]}.classifier.") for part in range(len(PARTS))),
            (r"^drop_block\.", "batch_drop_block.drop_batch_bottleneck."),
            (r"^shared\.conv\.", "shared.0."),
            (r"^shared\.bn\.", "shared.1."),
        ),
        fields=_fields,
    ),
    imagenet_names(r"(drop_block|shared|(reduce|neck|classifier)_\d)\..*", (r"^(global|partial|channel)_branch\.", "")),
)
