"""MGN, the multiple granularity network: three ResNet branches that see a photo whole, in halves and in thirds.

Wang et al., Learning Discriminative Features with Multiple Granularities for Person Re-Identification, ACM MM 2018.
Network and names are LightMBN's; `mgn` trains it as that repository does, `mgn_paper` as the paper says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax.config import expect
from deskpro_jax.errors import InputError
from deskpro_jax.losses import weighted_terms
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.check import check_resnet
from deskpro_jax.models.contract import Counts, LossTerm, PublishedNames, Recipe, StreamSpec
from deskpro_jax.models.resnet import (
    LIGHTMBN,
    ResNetTail,
    ResNetTrunk,
    backbone_field,
    imagenet_names,
    label_of,
    resnet,
)
from deskpro_jax.models.streams import Streams
from deskpro_jax.models.stripes import pool, stripes

BRANCHES = ("p1", "p2", "p3")
PARTS = ("p1", "p2", "p3", "p2_upper", "p2_lower", "p3_upper", "p3_middle", "p3_lower")
TRIPLET_PARTS = (0, 1, 2)  # the whole maps take the triplet loss
ROWS = 96  # pixels of height that give halves and thirds of whole rows


class Reduction(nn.Module):
    """1x1 convolution, BatchNorm and ReLU."""

    features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch 1 1 channels"], *, train: bool, valid: Array | None) -> Array:
        init = initialisers.kaiming_fan_out(x.shape[-1])  # by fan-in, as published
        x = layers.Pointwise(self.features, dtype=self.dtype, kernel_init=init, name="conv")(x)
        return nn.relu(layers.BatchNorm(dtype=self.dtype, name="bn")(x, train=train, valid=valid))


class MGN(nn.Module):
    """A trunk to layer3's first block and three branches; only the first keeps layer4's stride 2."""

    num_classes: int
    backbone: str = "resnet50"
    pool: str = "avg"
    feature_dim: int = 512
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the network.

        Args:
            images: normalised; height is a multiple of 96, width of 32.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows.
            valid: rows that count [batch], all of them if absent.

        Returns:
            outputs: `logits` [8, batch, classes]; `features` and `embeddings` [8, batch, feature_dim], both after the
                reduction, in the order of `PARTS`.
            intermediates: the last map of each branch, `p1` to `p3`, and those of `ResNetTrunk`.
        """
        network, stats = resnet(self.backbone), layers.at_least_float32(self.dtype)
        trunk = ResNetTrunk(network, attention=self.attention, dtype=self.dtype, remat=self.remat, name="trunk")
        x, middle = trunk(images, train=train, valid=valid)
        maps = {}
        for branch, last_stride in zip(BRANCHES, (2, 1, 1), strict=True):
            tail = ResNetTail(network, last_stride, self.dtype, self.remat, name=branch)
            maps[branch] = tail(x, train=train, valid=valid)
        seen = [*maps.values(), *stripes(maps["p2"], 2), *stripes(maps["p3"], 3)]
        features, logits = [], []
        init = initialisers.kaiming_fan_out(self.num_classes)
        for part, x in enumerate(seen):
            reduction = Reduction(self.feature_dim, stats, name=f"reduction_{part}")
            features.append(reduction(pool(x, self.pool), train=train, valid=valid))
            classifier = layers.Pointwise(self.num_classes, (), True, stats, init, name=f"classifier_{part}")
            logits.append(classifier(features[-1]))
        reduced = jnp.stack(features)[:, :, 0, 0]
        outputs = {"logits": jnp.stack(logits)[:, :, 0, 0], "features": reduced, "embeddings": reduced}
        return outputs, {**middle, **maps}


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> MGN:
    """Returns the network."""
    model = config.model
    return MGN(
        counts.identities,
        model.backbone,
        model.pool,
        model.feature_dim,
        attention=attention,
        dtype=jnp.dtype(model.dtype),
    )


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream: eight parts, of which the three whole maps take the triplet loss."""
    return StreamSpec(name, image, PARTS, TRIPLET_PARTS, config.model.feature_dim)


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns cross-entropy of all parts and triplet loss of the whole maps."""
    return weighted_terms(config.loss, spec)


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe."""
    return Recipe(tuple(terms(config, stream(config))), label=label_of("trunk", *BRANCHES))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields ask for together.

    Raises:
        InputError: they ask for another network, or for photos that cannot be cut into halves and thirds.
    """
    check_resnet(config)
    height, width = expect.size(config, "data.body_size")
    if height % ROWS or width % 32:
        raise InputError(
            f"data.body_size is {height}x{width}; 'mgn' cuts maps into halves and thirds: expected a height that is a"
            f" multiple of {ROWS} and a width that is a multiple of 32, e.g. 384x128."
        )


_CODE: dict[str, object] = {
    "model.backbone": "resnet50",
    "model.pool": "avg",
    "model.feature_dim": 512,
    "data.body_size": (384, 128),
    "data.identities": 16,
    "data.images_per_identity": 4,
    "augment.erase": 0.5,
    "augment.erase_normalised": True,
    "loss.margin": 1.2,
    "loss.label_smoothing": 0.1,
    "loss.ce_weight": 0.5,
    "loss.triplet_weight": 0.5,
    "train.base_lr": 2e-4,
    "train.reference_batch": 0,
    "train.weight_decay": 5e-4,
    "train.epochs": 120,
    "train.warmup_epochs": 10,
    "train.schedule": "step",
    "train.milestones": (50, 80, 110),
}
_PAPER: dict[str, object] = {
    "model.pool": "max",
    "model.feature_dim": 256,
    "augment.crop": 0.0,
    "augment.erase": 0.0,
    "loss.label_smoothing": 0.0,
    "loss.ce_weight": 1.0,
    "loss.triplet_weight": 1.0,
    "train.optimizer": "sgd",
    "train.momentum": 0.9,
    "train.base_lr": 0.01,
    "train.epochs": 80,
    "train.warmup_epochs": 0,
    "train.milestones": (40, 60),
}
VARIANTS: dict[str, dict[str, object]] = {"mgn": _CODE, "mgn_paper": {**_CODE, **_PAPER}}
DEBUG = {"model.backbone": "resnet14_x0_25", "data.body_size": (96, 32)}


def _fields(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        **backbone_field(shapes, "backone.0.weight"),
        "model.feature_dim": shapes["reduction_0.0.weight"][0],
    }


_CLASSIFIERS = ("2048_0", "2048_1", "2048_2", "256_1_0", "256_1_1", "256_2_0", "256_2_1", "256_2_2")
NAMES = (
    PublishedNames(
        "mgn",
        ("backone.6.conv1.weight", "p1.1.0.conv1.weight", "reduction_7.0.weight", "fc_id_256_2_2.weight"),
        rename=(
            *LIGHTMBN,
            (r"^reduction_(\d)\.conv\.", r"reduction_\1.0."),
            (r"^reduction_(\d)\.bn\.", r"reduction_\1.1."),
            *((rf"^classifier_{part}\.", f"fc_id_{name}.") for part, name in enumerate(_CLASSIFIERS)),
        ),
        fields=_fields,
    ),
    imagenet_names(r"(reduction|classifier)_\d\..*", (r"^p\d\.", "")),
)
