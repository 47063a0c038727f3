"""LaST: people of films over hundreds of scenes; no cameras, and outfits are labelled in train only."""

from __future__ import annotations

import dataclasses

from deskpro_jax.data.datasets.protocols import UNFILTERED
from deskpro_jax.data.datasets.spec import DatasetSpec, PhotoFolder, Size

_TEST = r"(?P<name>(?P<identity>\d{1,9})(?P<frame>(?:[_.].*)?))"
_TRAIN = r"(?P<name>(?P<identity>\d{1,9})_(?P<frame>(?:[^_.]+_)*)(?P<clothes>[^_.]+)(?:\..*)?)"

SPEC = DatasetSpec(
    "last",
    (
        dataclasses.replace(
            UNFILTERED, name="general", description="no cameras in this dataset, and no image removed: every hit counts"
        ),
    ),
    "https://github.com/shuxjweb/last",
    camera="the dataset has no cameras",
    clothes="in train the last field of the name, to be compared within one identity; not known in the test",
    folders=(
        PhotoFolder("train", "train", f".+/{_TRAIN}", "PID/PID_..._CLOTHES"),
        PhotoFolder("query", "test/query", _TEST, "PID_..."),
        PhotoFolder("gallery", "test/gallery", f".+/{_TEST}", "PID/PID_..."),
    ),
    roots=("last", ""),
    sizes=(Size("train", 71_248, 5_000), Size("query", 10_176, 5_805), Size("gallery", 125_353, 5_806)),
)
