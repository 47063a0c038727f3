"""LTCC: twelve cameras; outfits are labelled, and train and test number people together."""

from __future__ import annotations

from deskpro_jax.data.datasets.protocols import CLOTHES_CHANGING, GENERAL, SAME_CLOTHES
from deskpro_jax.data.datasets.spec import DatasetSpec, Size, split_folders

SPEC = DatasetSpec(
    "ltcc",
    (GENERAL, CLOTHES_CHANGING, SAME_CLOTHES),
    "https://naiq.github.io/LTCC_Perosn_ReID.html",
    camera="the number after c",
    clothes="the second number; to be compared within one identity",
    folders=split_folders(
        r"(?P<identity>\d{1,9})_(?P<clothes>\d{1,9})_c(?P<camera>\d{1,9})_(?P<frame>[\w-]+)",
        "PID_CLOTHES_cCAM_FRAME, as in 001_1_c4_015833",
        gallery="test",
    ),
    sizes=(Size("train", 9_576, 77), Size("query", 493), Size("gallery", 7_050, 75)),
    identities_across_splits=True,
)
