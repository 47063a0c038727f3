"""Embeddings and labels of the size of real test sets, drawn: people that can be told apart, though not always."""

from __future__ import annotations

import numpy as np

from deskpro_jax.evaluation.matching_rules import Labels

PARTS = 14
DIMENSION = 7168
_BLOCK = 2048
_CAMERAS = 6


def labels(images: int, identities: int, seed: int) -> Labels:
    """Returns labels [images]; people take turns, cameras are drawn."""
    rng = np.random.default_rng([seed, images])
    cameras = rng.integers(1, _CAMERAS + 1, images)
    return Labels(np.arange(images) % identities, cameras, np.full(images, -1))


def embeddings(identity: np.ndarray, dimension: int, seed: int) -> np.ndarray:
    """Returns [images, dimension] float32 of `PARTS` unit-length parts, written in blocks: no copy of the whole.

    Args:
        identity: [images], numbers from 0; images of one of them are alike.
        dimension: a multiple of `PARTS`.
        seed: of what is drawn for the images; people look the same under every seed.
    """
    people = np.random.default_rng(0).standard_normal((int(identity.max()) + 1, dimension), np.float32)
    rng = np.random.default_rng([1, seed])
    found = np.empty((len(identity), dimension), np.float32)
    for start in range(0, len(identity), _BLOCK):
        rows = found[start : start + _BLOCK]
        rng.standard_normal(out=rows, dtype=np.float32)
        rows *= 4.0  # so much that the mAP is neither 0 nor 1
        rows += people[identity[start : start + _BLOCK]]
        parts = rows.reshape(len(rows), PARTS, -1)
        parts /= np.linalg.norm(parts, axis=2, keepdims=True)
    return found
