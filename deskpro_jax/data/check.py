"""Checks the fields of a configuration that say what is loaded and how it is augmented: `data.*` and `augment.*`."""

from __future__ import annotations

import ml_collections

from deskpro_jax.config import expect
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.load import pixel_sampling
from deskpro_jax.data.load.decoding import INTERPOLATIONS
from deskpro_jax.data.load.sampling import SAMPLERS
from deskpro_jax.data.masks import AUTO, MASK_KINDS
from deskpro_jax.errors import InputError

_LARGEST_SEED = 2**63 - 1


def check(config: ml_collections.ConfigDict) -> None:
    """Checks `data.*` and `augment.*`; what depends on the dataset's content is checked when it is opened.

    Raises:
        InputError: a field has a value that cannot be used, or fields do not go together; the message names them.
    """
    find_dataset(expect.text(config, "data.name", empty=False))
    for name in ("data_dir", "raw_dir", "parts_dir"):
        expect.text(config, f"data.{name}")
    expect.choice(config, "data.mask_kind", (AUTO, *MASK_KINDS))
    expect.boolean(config, "data.allow_different_size")
    expect.integer(config, "data.build_seed", least=0, most=_LARGEST_SEED)
    _check_clothing(config)
    for name in ("body_size", "face_size"):
        expect.size(config, f"data.{name}")
    for name in ("identities", "images_per_identity"):
        expect.integer(config, f"data.{name}", least=1)
    expect.choice(config, "data.sampler", SAMPLERS)
    expect.choice(config, "data.interpolation", tuple(INTERPOLATIONS))
    for name in ("require_face", "require_mask", "skip_corrupt"):
        expect.boolean(config, f"data.{name}")
    for name in ("validation_identities", "workers", "frames_per_tracklet", "tracklet_length"):
        expect.integer(config, f"data.{name}", least=0)
    _check_augment(config)


def _check_clothing(config: ml_collections.ConfigDict) -> None:
    labels = expect.read(config, "data.clothing")
    valid = isinstance(labels, (tuple, list)) and all(type(label) is int and 0 <= label <= 255 for label in labels)
    if not valid:
        raise InputError(
            f"data.clothing is {labels!r}; it must be a sequence of part labels, integers >= 0 and <= 255, e.g. (5, 6),"
            " or () for those of the label scheme."
        )


def _check_augment(config: ml_collections.ConfigDict) -> None:
    for name in ("flip", "crop", "erase"):
        expect.number(config, f"augment.{name}", least=0, most=1)
    expect.number(config, "augment.crop_scale", least=1)
    expect.integer(config, "augment.pad", least=0)
    for name in ("brightness", "contrast", "saturation"):
        expect.number(config, f"augment.{name}", least=0)
    expect.number(config, "augment.hue", least=0, most=0.5)
    expect.choice(config, "augment.pixel_sampling", pixel_sampling.FORMS)
    expect.interval(config, "augment.erase_area", least=0, most=1)
    expect.number(config, "augment.erase_ratio", above=0, most=1)
    # Normalised colours are measured in standard deviations from the mean colour.
    low, high = (-10, 10) if expect.boolean(config, "augment.erase_normalised") else (0, 1)
    expect.numbers_of(config, "augment.erase_fill", 3, least=low, most=high)
    expect.integer(config, "augment.shared_draws", least=0)
