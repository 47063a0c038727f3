"""The nearest gallery images of queries, exactly: block by block, each pair compared by the streams that both have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.ranking import similarity


class Neighbours(NamedTuple):
    """What was found, best first.

    Attributes:
        rows: [queries, k] int64, positions in the gallery; -1 where there are fewer that can be compared.
        similarity: [queries, k] float32, -inf there.
        shared: [queries, k] int64, parts that query and gallery image both have.
    """

    rows: np.ndarray
    similarity: np.ndarray
    shared: np.ndarray


def nearest(
    query: np.ndarray, gallery: Iterable[np.ndarray], k: int, *, parts: int, missing_face: str = "body"
) -> Neighbours:
    """Finds the k most similar gallery images of every query.

    Args:
        query: [queries, parts * dimension].
        gallery: blocks [images, parts * dimension], in order.
        k: how many.
        parts: number of equally long parts of an embedding.
        missing_face: as in `ranking.similarity`.

    Returns:
        Those with the largest `ranking.similarity` (mean over the parts that both have: a query without a
        face is compared by its body alone); equal ones in gallery order; images that share no part with the query are
        left out.

    Raises:
        InputError: `k` is less than 1, or the shapes don't fit.
    """
    if k < 1:
        raise InputError(f"k is {k}; expected at least 1.")
    best = empty(len(query), k)
    has = present(query, parts)
    start = 0
    for block in gallery:
        near = similarity(query, block, parts=parts, missing_face=missing_face)
        shared = np.rint(has.astype(np.float32) @ present(block, parts).T.astype(np.float32)).astype(np.int64)
        near[shared == 0] = -np.inf
        for i in range(len(query)):
            # An equal one further on never replaces an earlier one.
            columns = np.flatnonzero(near[i] > best.similarity[i, -1])
            if len(columns):
                merge(best, i, start + columns, near[i, columns], shared[i, columns])
        start += len(block)
    return best


def empty(queries: int, k: int) -> Neighbours:
    """Returns a result in which nothing is found yet."""
    return Neighbours(
        np.full((queries, k), -1, np.int64),
        np.full((queries, k), -np.inf, np.float32),
        np.zeros((queries, k), np.int64),
    )


def merge(best: Neighbours, query: int, rows: np.ndarray, near: np.ndarray, shared: np.ndarray) -> None:
    """Puts more candidates among the neighbours of one query, in place.

    Args:
        best: what was found so far.
        query: position of the query.
        rows: [candidates] positions in the gallery.
        near: [candidates] similarities.
        shared: [candidates] parts that both have.
    """
    k = best.rows.shape[1]
    values = np.concatenate([best.similarity[query], near.astype(np.float32)])
    places = np.concatenate([best.rows[query], rows])
    counts = np.concatenate([best.shared[query], shared])
    order = np.lexsort((places, -values))[:k]
    best.similarity[query], best.rows[query], best.shared[query] = values[order], places[order], counts[order]


def present(embeddings: np.ndarray, parts: int) -> np.ndarray:
    """Returns which parts embeddings have, [images, parts] bool: those that are not zero."""
    return np.asarray(embeddings.reshape(len(embeddings), parts, -1).any(axis=2))


def compared(shared: int, streams: tuple[str, ...], parts: int) -> str:
    """Returns in words what two images were compared by: the streams that both have.

    Args:
        shared: parts that both have.
        streams: of the embeddings, in order.
        parts: of the embeddings.
    """
    if shared == parts:
        return " and ".join(streams)
    return streams[-1]  # the body stream, which every image has
