"""CSSC: layer4 of a ResNet twice, side by side; each branch refines its maps by their average and by their maximum.

Wang et al., Content and Salient Semantics Collaboration for Cloth-Changing Person Re-Identification, ICASSP 2025.
Network, names and recipe are those of its code; the embedding is the last map's maximum, without a neck.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax.losses import weighted_terms
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.check import check_resnet
from deskpro_jax.models.contract import Counts, LossTerm, PublishedNames, Recipe, StreamSpec
from deskpro_jax.models.remat import run_block
from deskpro_jax.models.resnet import (
    Bottleneck,
    ResNetTail,
    ResNetTrunk,
    backbone_field,
    imagenet_names,
    label_of,
    resnet,
)
from deskpro_jax.models.squeeze_excitation import SqueezeExcitation
from deskpro_jax.models.streams import Streams
from deskpro_jax.models.stripes import equal_stripes, pool

STAGES = ("content_1", "salient_1", "salient_2", "content_2", "final")  # outputs in training, in this order
_ORDER = {"1": ("content_1", "salient_1"), "2": ("salient_2", "content_2")}  # of the refinements in each branch
_POOL = {"content": "avg", "salient": "max"}


class SemanticsRefinement(nn.Module):
    """SMR: reweights the channels of a map by what is pooled of it; a classifier of whole and stripes teaches it.

    Content semantics are averages, salient ones maxima, of the whole and of the stripes alike.
    """

    num_classes: int
    pool: str
    parts: int = 8
    part_dim: int = 256
    reduction: int = 16
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool, valid: Array | None = None
    ) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch channels"], Float[Array, "batch ids"]]:
        """Returns the refined map, the pooled one before its neck, and the logits."""
        stats, linear = layers.at_least_float32(self.dtype), initialisers.uniform_fan_in(x.shape[-1])
        whole = pool(x, self.pool).astype(stats)
        seen = [layers.BatchNorm(frozen_bias=True, dtype=stats, name="neck")(whole, train=train, valid=valid)]
        for part, stripe in enumerate(equal_stripes(x, self.parts)):
            local = layers.Pointwise(self.part_dim, dtype=stats, kernel_init=linear, name=f"stripe_{part}_linear")(
                pool(stripe, self.pool)
            )
            seen.append(layers.BatchNorm(dtype=stats, name=f"stripe_{part}_bn")(local, train=train, valid=valid))
        init = initialisers.normal(0.001)
        logits = layers.Pointwise(self.num_classes, dtype=stats, kernel_init=init, name="classifier")(
            jnp.concatenate(seen, -1)
        )
        weights = SqueezeExcitation(self.reduction, True, stats, name="refinement")(whole[:, 0, 0])
        return x * weights[:, None, None].astype(x.dtype), whole[:, 0, 0], logits[:, 0, 0]


class CSSC(nn.Module):
    """A trunk to layer3, layer4's first two blocks in two branches, their sum through its third."""

    num_classes: int
    backbone: str = "resnet50"
    parts: int = 8
    part_dim: int = 256
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the network.

        Args:
            images: normalised; height and width are multiples of 16.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows.
            valid: rows that count [batch], all of them if absent.

        Returns:
            outputs: `logits` [5, batch, classes] and `features` before the neck [5, batch, dim], of the four
                refinements and of the whole network, in the order of `STAGES`; `embeddings` [1, batch, dim], the last
                of these features.
            intermediates: `feature_map` [batch, height / 16, width / 16, dim], and those of `ResNetTrunk`.
        """
        network, stats = resnet(self.backbone), layers.at_least_float32(self.dtype)
        trunk = ResNetTrunk(network, attention=self.attention, dtype=self.dtype, remat=self.remat, name="trunk")
        x, middle = trunk(images, train=train, valid=valid)
        tail = ResNetTail(network, dtype=self.dtype, remat=self.remat, numbers=(3,), name="tail")
        x = tail(x, train=train, valid=valid)

        def layer4(x: Array, name: str) -> Array:
            block = Bottleneck(8 * network.width, dtype=self.dtype, name=name)
            return run_block(block, x, train=train, valid=valid, remat=self.remat)

        maps, features, logits = [], [], []
        for branch, stages in _ORDER.items():
            y = x
            for block, stage in enumerate(stages):
                y = layer4(y, f"layer4_{block}_branch{branch}")
                kind = _POOL[stage.partition("_")[0]]
                refine = SemanticsRefinement(
                    self.num_classes, kind, self.parts, self.part_dim, dtype=self.dtype, name=stage
                )
                y, pooled, scores = refine(y, train=train, valid=valid)
                features.append(pooled)
                logits.append(scores)
            maps.append(y)
        x = layer4(maps[0] + maps[1], "layer4_2")
        final = pool(x, "max").astype(stats)
        neck = layers.BatchNorm(frozen_bias=True, dtype=stats, name="neck")(final, train=train, valid=valid)
        init = initialisers.normal(0.001)
        scores = layers.Pointwise(self.num_classes, dtype=stats, kernel_init=init, name="classifier")(neck)
        final = final[:, 0, 0]
        outputs = {
            "logits": jnp.stack([*logits, scores[:, 0, 0]]),
            "features": jnp.stack([*features, final]),
            "embeddings": final[None],
        }
        return outputs, {**middle, "feature_map": x}


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> CSSC:
    """Returns the network."""
    model = config.model
    return CSSC(
        counts.identities, model.backbone, model.parts, model.feature_dim, attention, dtype=jnp.dtype(model.dtype)
    )


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream: one part; the features of all five stages take the triplet loss."""
    dim = resnet(config.model.backbone).features(4)
    return StreamSpec(name, image, ("global",), tuple(range(len(STAGES))), dim)


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns cross-entropy and triplet loss of the five stages; the latter begins at `loss.triplet_start`."""
    return weighted_terms(config.loss, spec)


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe."""
    blocks = [f"layer4_{block}_branch{branch}" for block in (0, 1) for branch in _ORDER]
    return Recipe(tuple(terms(config, stream(config))), label=label_of("trunk", "tail", *blocks, "layer4_2"))


check = check_resnet


VARIANTS: dict[str, dict[str, object]] = {
    "cssc": {
        "model.backbone": "resnet50",
        "model.parts": 8,
        "model.feature_dim": 256,
        "data.body_size": (384, 192),
        "data.identities": 4,
        "data.images_per_identity": 8,
        "augment.crop": 0.0,
        "augment.pad": 10,
        "augment.erase": 0.5,
        "augment.erase_normalised": True,
        "augment.erase_fill": (0.0, 0.0, 0.0),
        "loss.margin": 0.3,
        "loss.label_smoothing": 0.1,
        "loss.triplet_weight": 1.0,
        "loss.triplet_start": 35,
        "train.base_lr": 3e-4,
        "train.reference_batch": 0,
        "train.weight_decay": 5e-4,
        "train.epochs": 120,
        "train.warmup_epochs": 10,
        "train.warmup_factor": 0.1,
        "train.schedule": "step",
        "train.milestones": (30, 60),
    }
}
DEBUG = {"model.backbone": "resnet14_x0_25", "model.parts": 2, "loss.triplet_start": 1}


def _fields(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    stripe = "smr_c_branch1.l_conv_list."
    return {
        **backbone_field(shapes, "backbone_before_layer4.0.weight"),
        "model.parts": sum(name.startswith(stripe) and name.endswith(".0.weight") for name in shapes),
        "model.feature_dim": shapes[f"{stripe}0.0.weight"][0],
    }


NAMES = (
    PublishedNames(
        "cssc",
        (
            *("backbone_before_layer4.4.0.conv1.weight", "backbone_layer43.conv3.weight"),
            *("smr_c_branch1.l_conv_list.0.0.weight", "smr_s_branch2.refinement.2.weight", "classifier.weight"),
        ),
        rename=(
            *(
                (rf"^trunk\.{name}\.", f"backbone_before_layer4.{index}.")
                for index, name in enumerate(("conv1", "bn1"))
            ),
            *((rf"\blayer{n}_(\d+)\.", rf"backbone_before_layer4.{n + 3}.\1.") for n in (1, 2, 3)),
            (r"^(trunk|tail)\.", ""),
            *((rf"^layer4_{block}_", f"backbone_layer4{block + 1}_") for block in (0, 1)),
            (r"^layer4_2\.", "backbone_layer43."),
            (r"^(c|s)(?:ontent|alient)_(\d)\.", r"smr_\1_branch\2."),
            (r"\bstripe_(\d+)_linear\.", r"l_conv_list.\1.0."),
            (r"\bstripe_(\d+)_bn\.", r"l_conv_list.\1.1."),
            (r"\bfc_(\d)\.", r"\1."),
            (r"\bneck\.", "bottleneck."),
            (r"\bdownsample_", "downsample."),
        ),
        linear=r"(.*\.)?(classifier|l_conv_list\.\d+\.0|refinement\.\d)\.weight",
        fields=_fields,
    ),
    imagenet_names(r"((content|salient)_\d|neck|classifier)\..*", (r"^(layer4_\d)_branch\d\.", r"\1.")),
)
