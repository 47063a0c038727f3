"""OSNet by itself: global features of a whole photo, softmax or softmax with triplet loss.

Zhou et al., Omni-Scale Feature Learning for Person Re-Identification, ICCV 2019; all widths of torchreid's model zoo.
`osnet_ain` and `osnet_ibn` are the same network with instance normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections

from deskpro_jax.errors import InputError
from deskpro_jax.losses import weighted_terms
from deskpro_jax.models.contract import Counts, LossTerm, PublishedNames, Recipe, StreamSpec
from deskpro_jax.models.osnet import PREFIXES, WIDTHS, OSNet, backbone
from deskpro_jax.models.streams import Streams

Shapes = Mapping[str, tuple[int, ...]]  # of the tensors of a file, by name

PARTS = ("global",)
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
    return weighted_terms(config.loss, spec)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe of a run that trains the network by itself."""
    return Recipe(tuple(terms(config, stream(config))))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: they ask for another network than an OSNet; the message names the field.
    """
    model = config.model
    if backbone(model.backbone).trunk is not None:
        raise InputError(f"model.backbone is {model.backbone!r}; model.name {model.name!r} takes an OSNet.")
    if not model.body or model.face != "none":
        raise InputError(
            f"model.name is {model.name!r}, which has a body stream only, and model.body is {model.body}, model.face is"
            f" {model.face!r}; expected True and 'none'."
        )


def published_names(kind: str, fields: Callable[[Shapes], dict[str, Any]]) -> PublishedNames:
    """Returns how torchreid's files name the tensors of an OSNet.

    Args:
        kind: of normalisation, as `Backbone.norm`.
        fields: as `PublishedNames.fields`.
    """
    ain = kind == "ain"
    signature = ("conv1.conv.weight", "conv5.conv.weight", "fc.0.weight")
    marks = {"batch": (), "ibn": ("conv2.0.IN.weight", "conv2.2.0.conv.weight"), "ain": ("pool2.0.conv.weight",)}
    # The light convolutions of one depth are stacked by branch: those of branch t (from 0) are t + 1 in a row.
    light = "conv2.{t}.layers.{depth}" if ain else "conv2{branch}.{depth}"
    stacks = tuple(
        (
            rf"\bstage{depth}\b",
            tuple(light.format(t=t, branch="abcd"[t], depth=depth) for t in range(depth, 4)),
        )
        for depth in range(4)
    )
    pools = "pool{}.0" if ain else "conv{}.2.0"
    return PublishedNames(
        "osnet",
        signature + marks[kind],
        stacks=stacks,
        rename=(
            *(() if ain else ((r"\bconv2a\.0\b", "conv2a"),)),  # branch a is one convolution, not a sequence of them
            (r"^(trunk|tail)\.", ""),
            (r"^stem_norm\b", "conv1.bn"),
            (r"^stem\b", "conv1.conv"),
            (r"^block(\d)_(\d)\b", r"conv\1.\2"),
            *((rf"^transition{stage}\b", pools.format(stage)) for stage in (2, 3)),
            (r"\bpointwise\b", "conv1"),
            (r"\bdepthwise\b", "conv2"),
            (r"\binstance_norm\b", "IN"),
            (r"\bconv3\.weight$", "conv3.conv.weight"),  # without a BatchNorm
            (r"^fc\.", "fc.0."),
            (r"^fc_norm\b", "fc.1"),
            (r"^attention\..*", ""),
        ),
        linear=r"(fc\.0|classifier)\.weight",
        fields=fields,
    )


def width_of(shapes: Shapes) -> str:
    """Returns the width of an OSNet by the channels of its first convolution.

    Raises:
        InputError: no OSNet has as many.
    """
    channels = shapes["conv1.conv.weight"][0]
    width = next((name for name, widths in WIDTHS.items() if widths[0] == channels), None)
    if width is None:
        known = ", ".join(f"{name} ({widths[0]})" for name, widths in WIDTHS.items())
        raise InputError(f"conv1.conv.weight has {channels} channels; expected those of an OSNet: {known}.")
    return width


def published_fields(shapes: Shapes) -> dict[str, Any]:
    """Returns what the network in a file is, see `PublishedNames.fields`."""
    return {"model.backbone": width_of(shapes), "model.feature_dim": shapes["fc.0.weight"][0]}


NAMES = ("osnet", published_names("batch", published_fields))  # "osnet": `weights.families` knows them as well
# What torchreid's configurations of all OSNets have in common; random batches of 64.
TORCHREID: dict[str, Any] = {
    "model.backbone": "x1_0",
    "model.feature_dim": 512,
    "data.body_size": BODY_SIZE,
    "data.sampler": "images",
    "data.identities": 16,
    "data.images_per_identity": 4,
    "augment.crop": 0.0,
    "augment.erase": 0.0,
    "loss.label_smoothing": 0.1,
    "loss.triplet_weight": 0.0,
    "train.optimizer": "amsgrad",
    "train.base_lr": 0.0015,
    "train.reference_batch": 0,
    "train.warmup_epochs": 0,
    "train.freeze_epochs": 10,  # "fixbase"
    "train.epochs": 150,
    "train.schedule": "step",
    "train.milestones": (60, 120),
    "eval.flip": False,
    "eval.distance": "euclidean",
}
JITTER = {"augment.brightness": 0.2, "augment.contrast": 0.15}
# Of the two narrow widths: batches of 128.
_NARROW = {"data.identities": 32, "train.base_lr": 0.003, "train.epochs": 180, "train.milestones": (80, 160)}
VARIANTS: dict[str, dict[str, Any]] = {
    "osnet": TORCHREID,
    "osnet_x0_75": {**TORCHREID, "model.backbone": "x0_75"},
    "osnet_x0_5": {**TORCHREID, **_NARROW, "model.backbone": "x0_5"},
    "osnet_x0_25": {**TORCHREID, **_NARROW, "model.backbone": "x0_25"},
    # Batches of identities, as a triplet loss needs them.
    "osnet_triplet": {**TORCHREID, "data.sampler": "identities", "loss.triplet_weight": 1.0, "loss.margin": 0.3},
}
DEBUG: dict[str, Any] = {"train.freeze_epochs": 0, "train.milestones": (1,)}
