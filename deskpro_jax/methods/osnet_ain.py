"""OSNet-AIN: instance normalisation inside the residual of four blocks, in place of their last BatchNorm.

Zhou et al., Learning Generalisable Omni-Scale Representations for Person Re-Identification, TPAMI 2021
(arXiv:1910.06827); all widths of torchreid's model zoo.
"""

from __future__ import annotations

from typing import Any

import ml_collections

from deskpro_jax.config import expect
from deskpro_jax.methods import osnet
from deskpro_jax.methods.osnet import PARTS, recipe, stream, streams, terms
from deskpro_jax.models.contract import Counts
from deskpro_jax.models.osnet import WIDTHS, OSNet
from deskpro_jax.models.streams import Streams

__all__ = ["DEBUG", "NAMES", "PARTS", "VARIANTS", "build", "check", "network", "recipe", "stream", "streams", "terms"]


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> OSNet:
    """Returns an OSNet-AIN of the width `model.backbone`; arguments as of `osnet.network`."""
    return osnet.network(config, counts, attention=attention, norm="ain")


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module: an OSNet-AIN as the body stream."""
    return Streams(body_stream=network(config, counts))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: they ask for another network than an OSNet-AIN; the message names the field.
    """
    expect.choice(config, "model.backbone", tuple(WIDTHS))
    expect.choice(config, "model.streams", ("abcd",))
    osnet.check(config)


NAMES = (osnet.published_names("ain", osnet.published_fields),)
VARIANTS: dict[str, dict[str, Any]] = {
    "osnet_ain": {
        **osnet.TORCHREID,
        **osnet.JITTER,
        "train.epochs": 100,
        "train.schedule": "cosine_to_zero",
        "train.milestones": (),
        "eval.distance": "cosine",
    },
}
DEBUG: dict[str, Any] = {"train.freeze_epochs": 0}
