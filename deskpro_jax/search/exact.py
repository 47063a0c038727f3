"""The nearest gallery images of queries, exactly: block by block, each pair compared by the streams that both have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.similarity import Similarity


class Neighbours(NamedTuple):
    """The most similar gallery images of each query, best first.

    Attributes:
        rows: [queries, k] int64, positions in the gallery; -1 where there are fewer that can be compared.
        similarity: [queries, k] float32, -inf there.
        shared: [queries, k] int64, parts that query and gallery image both have.
    """

    rows: np.ndarray
    similarity: np.ndarray
    shared: np.ndarray


def nearest(
    query: np.ndarray,
    gallery: Iterable[np.ndarray],
    k: int,
    similarity: Similarity,
    left_out: np.ndarray | None = None,
) -> Neighbours:
    """Finds the k most similar gallery images of every query.

    Args:
        query: [queries, dimension].
        gallery: blocks [images, dimension], in order.
        k: how many.
        similarity: the similarity of these embeddings.
        left_out: [gallery images] bool, images that are in no result; None for none.

    Returns:
        Those with the highest similarity; equal ones in gallery order; images that share no part with the query are
        left out.

    Raises:
        InputError: `k` is less than 1, or the shapes don't fit.
    """
    if k < 1:
        raise InputError(f"k is {k}; expected at least 1.")
    best = empty(len(query), k)
    start = 0
    for block in gallery:
        query, block = similarity.check(query, block)
        mine, theirs = similarity.present(query), similarity.present(block)
        values = similarity.between(query, block, theirs)
        shared = np.rint(mine.astype(np.float32) @ theirs.T.astype(np.float32)).astype(np.int64)
        values[shared == 0] = -np.inf
        if left_out is not None:
            values[:, left_out[start : start + len(block)]] = -np.inf
        for i in range(len(query)):
            # An equal one further on never replaces an earlier one.
            columns = np.flatnonzero(values[i] > best.similarity[i, -1])
            if len(columns):
                merge(best, i, start + columns, values[i, columns], shared[i, columns])
        start += len(block)
    return best


def empty(queries: int, k: int) -> Neighbours:
    """Returns neighbours with no gallery image in them yet."""
    return Neighbours(
        np.full((queries, k), -1, np.int64),
        np.full((queries, k), -np.inf, np.float32),
        np.zeros((queries, k), np.int64),
    )


def merge(best: Neighbours, query: int, rows: np.ndarray, similarity: np.ndarray, shared: np.ndarray) -> None:
    """Puts more candidates among the neighbours of one query, in place.

    Args:
        best: the neighbours so far.
        query: position of the query.
        rows: [candidates] positions in the gallery.
        similarity: [candidates].
        shared: [candidates] parts that both have.
    """
    k = best.rows.shape[1]
    values = np.concatenate([best.similarity[query], similarity.astype(np.float32)])
    positions = np.concatenate([best.rows[query], rows])
    counts = np.concatenate([best.shared[query], shared])
    order = np.lexsort((positions, -values))[:k]
    best.similarity[query], best.rows[query], best.shared[query] = values[order], positions[order], counts[order]
