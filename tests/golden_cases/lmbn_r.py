"""LightMBN on ResNet-50: embeddings and one training step."""

from __future__ import annotations

from deskpro_jax.methods import lmbn_r
from golden_cases import Golden, lmbn_n, steps

HEAVY = ("train",)
_NAMES = lmbn_r.NAMES[0]


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    lmbn_n.run_network(golden, case, lmbn_r, "resnet50", steps.reader(_NAMES), steps.writer(_NAMES))
