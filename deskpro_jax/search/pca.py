"""PCA of a gallery's vectors, by the streams that its images have; the gallery is read block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deskpro_jax.embedding.embedding_set import EmbeddingSet

PROJECTED = 256  # dimensions of a projected vector
SEED = 0
_FITTED = 4096  # vectors that the principal directions are computed from


def sample_of(rows: np.ndarray, count: int) -> np.ndarray:
    """Returns at most `count` of the rows, in order."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(SEED).choice(rows, count, replace=False))


def directions_of(gallery: EmbeddingSet, streams: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
    """Returns about the principal directions of vectors, orthonormal, [dimensions, PROJECTED] float32.

    Not centred, so that a dot product of projected vectors stands for that of the whole ones.
    """
    vectors = np.concatenate(list(vectors_of(gallery, streams, sample_of(rows, _FITTED))))
    basis = np.random.default_rng(SEED).standard_normal((vectors.shape[1], PROJECTED)).astype(np.float32)
    for _ in range(3):
        basis = np.linalg.qr(vectors.T @ (vectors @ basis))[0]
    return np.ascontiguousarray(basis, np.float32)


def project(vectors: np.ndarray, directions: np.ndarray | None) -> np.ndarray:
    """Returns vectors [n, dimensions] in the principal directions, [n, PROJECTED]; as they are without directions."""
    return vectors if directions is None else vectors @ directions


def members(gallery: EmbeddingSet) -> dict[tuple[str, ...], np.ndarray]:
    """Returns the rows of the gallery by the streams that the images have."""
    nothing = np.zeros((0, len(gallery.streams)), np.bool_)
    have = np.concatenate([nothing, *(gallery.similarity.present_streams(block) for block in gallery.blocks())])
    rows = {}
    for pattern in np.unique(have, axis=0)[::-1]:
        streams = tuple(name for name, there in zip(gallery.streams, pattern, strict=True) if there)
        if streams:
            rows[streams] = np.flatnonzero((have == pattern).all(axis=1))
    return rows


def vectors_of(gallery: EmbeddingSet, streams: tuple[str, ...], rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the columns of some streams of some rows (ascending), parts weighed (`Similarity.weigh`), by blocks."""
    by_stream = gallery.similarity.columns()
    columns = np.concatenate([np.arange(gallery.dimension)[by_stream[name]] for name in streams])
    start = 0
    for block in gallery.blocks():
        low, high = np.searchsorted(rows, (start, start + len(block)))
        if high > low:
            yield np.ascontiguousarray(gallery.similarity.weigh(block[rows[low:high] - start])[:, columns])
        start += len(block)
