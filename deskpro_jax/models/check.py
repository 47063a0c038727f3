"""Checks the fields of a configuration that say which network is built: `model.*`."""

from __future__ import annotations

import ml_collections

from deskpro_jax.config import expect
from deskpro_jax.models.attention import FORMS
from deskpro_jax.models.osnet import BACKBONES, OS_STREAMS, backbone

DTYPES = ("float32", "bfloat16", "float64")
FACES = ("student", "teacher", "none")


def check(config: ml_collections.ConfigDict) -> None:
    """Checks each field of `model.*`; what they ask for together is checked by the method.

    Raises:
        InputError: a field has a value that no network can be built from; the message names it.
    """
    if ":" in expect.text(config, "model.backbone", empty=False):
        backbone(config.model.backbone)
    else:
        expect.one_of("model.backbone", config.model.backbone, tuple(BACKBONES))
    expect.choice(config, "model.streams", OS_STREAMS)
    expect.boolean(config, "model.body")
    expect.choice(config, "model.face", FACES)
    expect.choice(config, "model.attention", (*FORMS, "none"))
    expect.integer(config, "model.feature_dim", least=1)
    expect.number(config, "model.drop_ratio", least=0, most=1)
    expect.choice(config, "model.dtype", DTYPES)
