"""The vectors of a gallery by the streams its images have, and shortened to where they vary most."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.search.exact import present

SHORTENED = 256  # numbers of a shortened vector
SEED = 0
_DIRECTIONS_FROM = 4096  # vectors that say along which directions a gallery varies most


def sample_of(rows: np.ndarray, count: int) -> np.ndarray:
    """Returns at most `count` of the rows, in order."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(SEED).choice(rows, count, replace=False))


def directions_of(gallery: EmbeddingSet, streams: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
    """Returns an orthonormal basis of about the space in which vectors vary most, [numbers, SHORTENED] float32.

    Not centred, so that a product of shortened vectors stands for that of the whole ones.
    """
    vectors = np.concatenate(list(vectors_of(gallery, streams, sample_of(rows, _DIRECTIONS_FROM))))
    basis = np.random.default_rng(SEED).standard_normal((vectors.shape[1], SHORTENED)).astype(np.float32)
    for _ in range(3):  # subspace iteration
        basis = np.linalg.qr(vectors.T @ (vectors @ basis))[0]
    return np.ascontiguousarray(basis, np.float32)


def shorten(vectors: np.ndarray, directions: np.ndarray | None) -> np.ndarray:
    return vectors if directions is None else vectors @ directions


def members(gallery: EmbeddingSet) -> dict[tuple[str, ...], np.ndarray]:
    """Returns the rows of the gallery by the streams they have."""
    nothing = np.zeros((0, len(gallery.streams)), np.bool_)
    blocks = (streams_of(block, gallery.parts, len(gallery.streams)) for block in gallery.blocks())
    have = np.concatenate([nothing, *blocks])
    members = {}
    for pattern in np.unique(have, axis=0)[::-1]:
        streams = tuple(name for name, there in zip(gallery.streams, pattern, strict=True) if there)
        if streams:
            members[streams] = np.flatnonzero((have == pattern).all(axis=1))
    return members


def streams_of(embeddings: np.ndarray, parts: int, streams: int) -> np.ndarray:
    """Returns which streams embeddings have, [images, streams] bool."""
    each = present(embeddings, parts).reshape(len(embeddings), streams, -1)
    return np.asarray(each.any(axis=2))


def vectors_of(gallery: EmbeddingSet, streams: tuple[str, ...], rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the columns of some streams of some rows (ascending), block by block."""
    width = gallery.dimension // len(gallery.streams)
    columns = np.concatenate([np.arange(width) + width * gallery.streams.index(name) for name in streams])
    start = 0
    for block in gallery.blocks():
        low, high = np.searchsorted(rows, (start, start + len(block)))
        if high > low:
            yield np.ascontiguousarray(block[np.ix_(rows[low:high] - start, columns)])
        start += len(block)
