"""The synthetic datasets: drawn people in several sizes, for tests, demonstrations and measurements."""

from __future__ import annotations

from deskpro_jax.data.datasets.protocols import CLOTHES_CHANGING, GENERAL
from deskpro_jax.data.datasets.spec import DatasetSpec


def _spec(size: str) -> DatasetSpec:
    return DatasetSpec(
        f"synthetic_{size}",
        (GENERAL, CLOTHES_CHANGING),
        "python -m deskpro_jax.data.layouts",
        synthetic_size=size,
        # 1.0.0 drew faces that colours of hair and skin tell apart.
        versions=("2.0.0", "1.0.0"),
    )


TINY, SMALL, FULL, PRETRAINING = _spec("tiny"), _spec("small"), _spec("full"), _spec("pretraining")
