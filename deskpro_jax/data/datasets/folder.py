"""A dataset of one's own: photos that a CSV lists with their labels."""

from __future__ import annotations

from deskpro_jax.data.datasets.protocols import CLOTHES_CHANGING, GENERAL, SAME_CLOTHES, UNFILTERED
from deskpro_jax.data.datasets.spec import DatasetSpec

SPEC = DatasetSpec(
    "folder",
    (GENERAL, CLOTHES_CHANGING, SAME_CLOTHES, UNFILTERED),
    "your own photos",
    camera="as the manifest says",
    clothes="as the manifest says",
    identities_across_splits=True,
    manifest=True,
)
