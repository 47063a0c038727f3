"""Checks the fields of a configuration that say which network is built: `model.*`."""

from __future__ import annotations

import ml_collections

from deskpro_jax.config import expect
from deskpro_jax.errors import InputError
from deskpro_jax.models.attention import FORMS
from deskpro_jax.models.capsules import ROUTINGS
from deskpro_jax.models.osnet import OS_STREAMS, PREFIXES
from deskpro_jax.models.resnet import resnet
from deskpro_jax.models.stripes import POOLS

DTYPES = ("float32", "bfloat16", "float64")
FACES = ("student", "teacher", "none")


def check(config: ml_collections.ConfigDict) -> None:
    """Checks each field of `model.*` and `teacher.method`; what they ask for together is checked by the method.

    Raises:
        InputError: a field has a value that no network can be built from; the message names it.
    """
    expect.text(config, "model.backbone", empty=False)
    expect.choice(config, "model.streams", OS_STREAMS)
    expect.boolean(config, "model.body")
    expect.text(config, "model.body_method")
    expect.texts(config, "model.body_options")
    expect.text(config, "teacher.method")
    expect.texts(config, "teacher.options")
    expect.choice(config, "model.face", FACES)
    expect.choice(config, "model.attention", (*FORMS, "none"))
    expect.integer(config, "model.feature_dim", least=1)
    expect.number(config, "model.drop_ratio", least=0, most=1)
    expect.choice(config, "model.dtype", DTYPES)
    expect.integer(config, "model.routing", least=1)
    expect.choice(config, "model.routing_over", ROUTINGS)
    expect.boolean(config, "model.image_parts")
    expect.size(config, "model.part_size")
    expect.boolean(config, "model.pyramid")
    expect.boolean(config, "model.stem_relu")
    expect.boolean(config, "model.align_corners")
    if config.model.streams != "abcd" and config.model.backbone.startswith(PREFIXES["ain"]):
        raise InputError(
            f"model.streams is {config.model.streams!r}, which the released code runs of OSNet; OSNet-AIN"
            f" ({config.model.backbone}) has no such form: expected 'abcd'."
        )
    expect.integer(config, "model.parts", least=1)
    expect.number(config, "model.dropout", least=0, most=1)
    expect.choice(config, "model.pool", POOLS)


def check_body_only(config: ml_collections.ConfigDict) -> None:
    """Checks that the only stream reads the photo, for methods without faces.

    Raises:
        InputError: `model.body`, `model.face` or `model.attention` asks for something else.
    """
    model = config.model
    if not model.body or model.face != "none" or model.attention != "none":
        raise InputError(
            f"model.name is {model.name!r}, which has a body stream only, without attention, and model.body is"
            f" {model.body}, model.face is {model.face!r}, model.attention is {model.attention!r}; expected True,"
            f" 'none' and 'none'."
        )


def check_resnet(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together, for methods that are a ResNet on the photo.

    Raises:
        InputError: they ask for another network than a ResNet on the photo; the message names the field.
    """
    resnet(config.model.backbone)
    check_body_only(config)
