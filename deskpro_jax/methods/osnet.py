"""OSNet by itself: global features of a whole photo, softmax or softmax with triplet loss.

Zhou et al., Omni-Scale Feature Learning for Person Re-Identification, ICCV 2019; all widths of torchreid's model zoo.
`osnet_ain` and `osnet_ibn` are the same network with instance normalisation.
"""

from __future__ import annotations

import jax.numpy as jnp
import ml_collections

from deskpro_jax.errors import InputError
from deskpro_jax.methods.deskpro import identity_terms
from deskpro_jax.models.check import check_backbone
from deskpro_jax.models.contract import Counts, LossTerm, Recipe, StreamSpec
from deskpro_jax.models.osnet import BACKBONES, PREFIXES, OSNet, backbone
from deskpro_jax.models.streams import Streams

PARTS = ("global",)
NAMES = ("osnet",)  # families of published weights, `weights.families`
BODY_SIZE = (256, 128)  # height and width of photos that torchreid's weights were trained with


def network(
    config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none", norm: str = "batch"
) -> OSNet:
    """Returns an OSNet.

    Args:
        config: the whole configuration.
        counts: sizes of the classifiers.
        attention: form of CSA behind the first block of conv3, where DeSKPro has it.
        norm: its kind of normalisation, as `Backbone.norm`, where `model.backbone` is only the width.
    """
    model = config.model
    return OSNet(
        PREFIXES[norm] + model.backbone,
        counts.identities,
        model.feature_dim,
        model.streams,
        jnp.dtype(model.dtype),
        attention=attention,
    )


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module: an OSNet as the body stream."""
    return Streams(body_stream=network(config, counts))


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream of the network, with one part."""
    return StreamSpec(name, image, PARTS, (0,), config.model.feature_dim)


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns the cross-entropy, and the triplet loss unless `loss.triplet_weight` is 0."""
    return [term for term in identity_terms(config.loss, spec) if term.weight]


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe of a run that trains the network by itself."""
    return Recipe(tuple(terms(config, stream(config))))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: they ask for another network than an OSNet; the message names the field.
    """
    check_backbone(config, BACKBONES, backbone)
    model = config.model
    if backbone(model.backbone).trunk is not None:
        raise InputError(f"model.backbone is {model.backbone!r}; model.name {model.name!r} takes an OSNet.")
    if not model.body or model.face != "none":
        raise InputError(
            f"model.name is {model.name!r}, which has a body stream only, and model.body is {model.body}, model.face is"
            f" {model.face!r}; expected True and 'none'."
        )
