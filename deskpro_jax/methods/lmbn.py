"""LightMBN by itself: three OSNet branches, seven parts, smoothed cross-entropy and multi-similarity loss.

Herzog et al., Lightweight Multi-Branch Network for Person Re-Identification, ICIP 2021: `LMBN_n` of its repository,
with that repository's recipe. `lmbn_r` has the same on ResNet-50.
"""

from __future__ import annotations

import jax.numpy as jnp
import ml_collections

from deskpro_jax.losses import weighted_terms
from deskpro_jax.models.check import check_body_only
from deskpro_jax.models.contract import Counts, LossTerm, Recipe, StreamSpec
from deskpro_jax.models.lmbn import PARTS, TRIPLET_PARTS, LightMBN
from deskpro_jax.models.osnet import backbone
from deskpro_jax.models.resnet import label_of
from deskpro_jax.models.streams import Streams

NAMES = ("lmbn",)  # families of published weights, `weights.families`
# The repository's command.
RECIPE: dict[str, object] = {
    "model.feature_dim": 512,
    "model.drop_ratio": 0.33,
    "data.body_size": (384, 128),
    "data.identities": 6,
    "data.images_per_identity": 8,
    "augment.erase": 0.5,
    "augment.erase_normalised": True,
    "loss.metric": "multi_similarity",
    "loss.margin": 0.7,
    "loss.ce_weight": 0.5,
    "loss.triplet_weight": 0.5,
    "loss.label_smoothing": 0.1,
    "train.base_lr": 6e-4,
    "train.reference_batch": 0,
    "train.weight_decay": 5e-4,
    "train.epochs": 130,
    "train.warmup_epochs": 10,
    "train.schedule": "cosine",
    "train.final_fraction": 0.001,
}
VARIANTS: dict[str, dict[str, object]] = {"lmbn": {"model.backbone": "x1_0", "model.streams": "abcd", **RECIPE}}


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> LightMBN:
    """Returns the network."""
    model = config.model
    return LightMBN(
        counts.identities,
        model.backbone,
        model.streams,
        attention,
        model.feature_dim,
        model.drop_ratio,
        jnp.dtype(model.dtype),
    )


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream: seven parts, of which three take the multi-similarity loss."""
    return StreamSpec(name, image, PARTS, TRIPLET_PARTS, config.model.feature_dim)


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns cross-entropy of all parts and the metric loss of three."""
    return weighted_terms(config.loss, spec)


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe."""
    return Recipe(tuple(terms(config, stream(config))), label=label_of("trunk", "branches"))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: they ask for another network than a LightMBN on the photo; the message names the field.
    """
    backbone(config.model.backbone)
    check_body_only(config)
