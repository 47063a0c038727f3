"""OSNet-IBN: instance normalisation after the first convolution, and at the end of conv2's blocks.

OSNet of `osnet` with torchreid's `osnet_ibn_x1_0` as its published width; the other widths are this package's.
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
    """Returns an OSNet-IBN of the width `model.backbone`; arguments as of `osnet.network`."""
    return osnet.network(config, counts, attention=attention, norm="ibn")


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module: an OSNet-IBN as the body stream."""
    return Streams(body_stream=network(config, counts))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: they ask for another network than an OSNet-IBN; the message names the field.
    """
    expect.choice(config, "model.backbone", tuple(WIDTHS))
    osnet.check(config)


NAMES = (osnet.published_names("ibn", osnet.published_fields),)
VARIANTS: dict[str, dict[str, Any]] = {"osnet_ibn": {**osnet.TORCHREID, **osnet.JITTER}}
DEBUG = osnet.DEBUG
