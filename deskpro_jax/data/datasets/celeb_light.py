"""Celeb-reID-light: the people of Celeb-reID, in other clothes on every image."""

from __future__ import annotations

from deskpro_jax.data.datasets import celeb
from deskpro_jax.data.datasets.spec import WITHOUT_C, DatasetSpec, Size, split_folders

SPEC = DatasetSpec(
    "celeb_light",
    celeb.PROTOCOLS,
    celeb.ORIGIN,
    camera=celeb.CAMERA,
    clothes="the image number: every image of a person shows other clothes",
    folders=split_folders(
        r"(?P<identity>\d{1,9})_(?P<camera>(?P<clothes>\d{1,9}))_(?P<frame>\d+)",
        celeb.NAMES,
    ),
    prepared=WITHOUT_C,
    sizes=(Size("train", 9_021, 490), Size("query", 887, 100), Size("gallery", 934, 100)),
    image_numbers=True,
)
