"""Whether a training split has the labels that losses learn from: outfits, and maps of garments."""

from __future__ import annotations

from absl import logging

from deskpro_jax.data.load.dataset import ReIDSplit, clothes_classes
from deskpro_jax.errors import InputError


def check_clothes(phase: str, split: ReIDSplit) -> None:
    """Checks that there are outfits to learn from; warns where each image is an outfit of its own.

    Args:
        phase: whose losses need them, for messages.
        split: the training split.

    Raises:
        InputError: no image has a label of its clothes.
    """
    images, outfits = int((split.clothes >= 0).sum()), len(clothes_classes(split))
    if not outfits:
        raise InputError(
            f"{phase} learns from the clothes of each image, and no image of {split.name}/{split.split} has a label"
            " of its clothes: choose a dataset with outfits (docs/datasets.md), or another method."
        )
    if outfits == images:
        logging.warning(
            "every image of %s/%s is an outfit of its own (%d): the classifier of clothes of %s can only learn the"
            " images by heart, and its losses say little about clothes",
            *(split.name, split.split, outfits, phase),
        )


def check_garments(phase: str, split: ReIDSplit) -> None:
    """Checks that there are label maps which tell upper clothes and trousers from all else.

    Args:
        phase: that needs them, for messages.
        split: the training split.

    Raises:
        InputError: there are none.
    """
    needs = f"{phase} changes upper clothes and trousers of photos, and"
    if not split.has_mask.any():
        raise InputError(
            f"{needs} no image of {split.name}/{split.split} has a label map: make them with `deskpro prepare` and name"
            " their folder in data.parts_dir (docs/data_preparation.md)."
        )
    if not split.scheme.upper:
        raise InputError(
            f"{needs} {split.name}/{split.split} has masks of all clothing ({split.scheme.name}), which do not tell"
            " them apart: expected label maps (lip, atr or pascal), as `deskpro prepare` makes them."
        )
