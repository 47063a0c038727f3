"""Celeb-reID: celebrities photographed in the street, without cameras and without labels of their clothes."""

from __future__ import annotations

import dataclasses

from deskpro_jax.data.datasets.protocols import UNFILTERED, Protocol
from deskpro_jax.data.datasets.spec import DatasetSpec, Size, split_folders

ORIGIN = "https://github.com/Huang-3/Celeb-reID"
NAMES = "x_y_z with x the identity and y the image number, as in 7_10_0"
CAMERA = "the dataset has no cameras; the whole image number y stands in for one"
PROTOCOLS = (
    Protocol(
        "image_number",
        "no cameras in this dataset; the whole image number stands in for one, which removes nothing",
        "general",
    ),
    Protocol(
        "first_digit",
        "no cameras in this dataset; the first digit of the image number stands in for one, as widely copied code has "
        "it, which removes images of the query's identity whose numbers begin alike",
        "general",
        camera="first_digit",
    ),
    dataclasses.replace(UNFILTERED, description="no cameras in this dataset, and no image removed"),
)

SPEC = DatasetSpec(
    "celeb",
    PROTOCOLS,
    ORIGIN,
    camera=CAMERA,
    folders=split_folders(r"(?P<identity>\d{1,9})_(?P<camera>\d{1,9})_(?P<frame>\d+)", NAMES),
    sizes=(Size("train", 20_208, 632), Size("query", 2_972, 420), Size("gallery", 11_006, 420)),
    image_numbers=True,
)
