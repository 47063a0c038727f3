"""Re-ranking by k-reciprocal neighbours, in blocks: no matrix of all images against all images is ever held."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.ranking import similarity

_MIB = 1 << 20
_BYTES_A_CELL = 30  # of one image compared with another, in float32
_BYTES_AN_IMAGE = 8_000  # neighbours and encodings, about 6 kB with k1 = 20 and k2 = 6


@dataclasses.dataclass(frozen=True)
class Reranking:
    """The settings of re-ranking; the defaults are the authors'."""

    k1: int = 20
    k2: int = 6
    original_weight: float = 0.3  # lambda
    memory: int = 2048  # MiB that re-ranking may take beside the embeddings it is given

    def block(self, query: np.ndarray, gallery: np.ndarray) -> int:
        """Returns how many images may be compared with all others at a time.

        Args:
          query: embeddings [queries, parts * dimension].
          gallery: embeddings [gallery images, parts * dimension].

        Raises:
          InputError: the memory is not enough for a single one.
        """
        total, scale = len(query) + len(gallery), max(1, query.itemsize // 4)
        row = _BYTES_A_CELL * scale * total
        fixed = query.nbytes + gallery.nbytes + _BYTES_AN_IMAGE * total
        rows = (self.memory * _MIB - fixed) // row
        if rows < 1:
            raise InputError(
                f"re-ranking {total} images within {self.memory} MiB is not possible: a copy of their embeddings, "
                f"their neighbours and one row of distances take {(fixed + row) // _MIB + 1} MiB; set "
                "eval.rerank_memory to that or more."
            )
        return min(int(rows), 1024)  # larger blocks are no faster

    def describe(self) -> str:
        """Returns the method and its parameters in words."""
        return f"re-ranked by k-reciprocal neighbours, k1={self.k1}, k2={self.k2}, lambda={self.original_weight:g}"

    def parameters(self) -> dict[str, float]:
        """Returns what decides the result, by name."""
        return {"k1": self.k1, "k2": self.k2, "lambda": self.original_weight}


class _Sparse(NamedTuple):
    """Sparse rows: row i has `value[start[i]:start[i+1]]` in the columns `column[start[i]:start[i+1]]`."""

    start: np.ndarray
    column: np.ndarray
    value: np.ndarray

    def rows(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns columns and values of the rows `which`, one after the other, and how many each row has."""
        begin = self.start[which]
        counts = self.start[which + 1] - begin
        at = np.arange(counts.sum()) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
        return self.column[at], self.value[at], counts


def rerank(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    parts: int,
    k1: int = 20,
    k2: int = 6,
    original_weight: float = 0.3,
    block: int = 256,
) -> Iterator[np.ndarray]:
    """Computes k-reciprocal re-ranked distances, to be given to `score_from_distances`.

    Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. The original distance is
    (2 - 2 similarity)^2 over its largest value in the row, as in the authors' code. An image that has no part at all
    is a neighbour of itself alone.

    Args:
      query: embeddings [queries, parts * dimension].
      gallery: embeddings [gallery images, parts * dimension].
      parts: number of parts in an embedding.
      k1: neighbours that must be mutual.
      k2: neighbours whose encodings are averaged.
      original_weight: lambda, the share of the original distance in the result.
      block: images compared with all others at a time; memory beside a copy of the embeddings is about
        30 * block * (queries + gallery images) bytes, and some kilobytes an image.

    Returns:
      Iterator over blocks of rows of [queries, gallery images] distances, smaller is nearer.

    Raises:
      InputError: shapes or parameters don't fit.
    """
    if k1 < 1 or k2 < 1 or not 0 <= original_weight <= 1 or block < 1:
        raise InputError(
            f"k1 {k1}, k2 {k2}, original_weight {original_weight}, block {block}; "
            "expected k1, k2 and block of at least 1 and a weight between 0 and 1."
        )
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1] or query.shape[1] % max(parts, 1):
        raise InputError(
            f"query embeddings {query.shape} and gallery embeddings {gallery.shape} with {parts} parts; "
            "expected [images, parts * dimension] of the same length."
        )
    return _reranked(query, gallery, parts, k1, k2, original_weight, block)


def _reranked(
    query: np.ndarray, gallery: np.ndarray, parts: int, k1: int, k2: int, original_weight: float, block: int
) -> Iterator[np.ndarray]:
    images = np.concatenate([query, gallery])
    nearest, largest = _neighbours(images, parts, max(k1 + 1, k2), block)
    encoding = _average(_encode(images, parts, nearest, largest, k1), nearest[:, :k2], block)
    queries, size = len(query), len(gallery)
    of_gallery = _transpose(encoding, queries, len(images))
    for first in range(0, queries, block):
        rows = np.arange(first, min(first + block, queries))
        result = _distances(query[rows], gallery, parts) / largest[rows, None]
        result *= original_weight
        for i, row in enumerate(rows):
            columns, mine, _ = encoding.rows(np.array([row]))
            other, theirs, counts = of_gallery.rows(columns)
            shared = np.bincount(other, np.minimum(np.repeat(mine, counts), theirs), minlength=size)
            result[i] += (1 - original_weight) * (1 - shared / (2 - shared))  # Jaccard distance; rows sum to one
        yield result


def _distances(some: np.ndarray, others: np.ndarray, parts: int) -> np.ndarray:
    near = similarity(some, others, parts=parts)
    np.subtract(1, near, out=near)
    near *= 2
    np.maximum(near, 0, out=near)  # rounding can make an image closer than itself
    return np.square(near, out=near)


def _neighbours(images: np.ndarray, parts: int, count: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each image's `count` nearest images, itself first, equal ones in order, and its largest distance."""
    total = len(images)
    count = min(count, total)
    nearest = np.empty((total, count), np.int64)
    largest = np.empty(total)
    for first in range(0, total, block):
        rows = np.arange(first, min(first + block, total))
        distances = _distances(images[rows], images, parts)
        largest[rows] = distances.max(axis=1)
        distances[np.arange(len(rows)), rows] = -1  # itself first, before exact copies
        for i, line in zip(rows, distances, strict=True):
            candidates = np.flatnonzero(line <= np.partition(line, count - 1)[count - 1])
            nearest[i] = candidates[np.argsort(line[candidates], kind="stable")[:count]]
    absent = ~images.any(axis=1)
    nearest[absent] = np.flatnonzero(absent)[:, None]
    largest[largest == 0] = 1
    return nearest, largest


def _reciprocal(nearest: np.ndarray) -> list[np.ndarray]:
    """Returns for each image those of its nearest images that have it among theirs."""
    mutual = []
    for i, row in enumerate(nearest):
        mutual.append(row[(nearest[row] == i).any(axis=1)])
    return mutual


def _encode(images: np.ndarray, parts: int, nearest: np.ndarray, largest: np.ndarray, k1: int) -> _Sparse:
    """Returns each image's k-reciprocal feature: Gaussian weights over its expanded mutual neighbours, sum one."""
    mutual = _reciprocal(nearest[:, : k1 + 1])
    half = [set(row.tolist()) for row in _reciprocal(nearest[:, : int(np.around(k1 / 2)) + 1])]
    indices, values = [], []
    for i, row in enumerate(mutual):
        own = set(row.tolist())
        expanded = own.union(*(half[j] for j in own if 3 * len(half[j] & own) > 2 * len(half[j])))
        index = np.array(sorted(expanded), np.int64)
        weights = np.exp(-_distances(images[i : i + 1], images[index], parts)[0].astype(np.float64) / largest[i])
        indices.append(index)
        values.append(weights / weights.sum())
    return _Sparse(_starts([len(index) for index in indices]), np.concatenate(indices), np.concatenate(values))


def _average(encoding: _Sparse, nearest: np.ndarray, block: int) -> _Sparse:
    """Returns the mean of the encodings of each image's nearest images."""
    total, count = nearest.shape
    counts, indices, values = [], [], []
    for first in range(0, total, block):
        some = nearest[first : first + block]
        index, value, lengths = encoding.rows(some.ravel())
        row = np.repeat(np.repeat(np.arange(len(some)), count), lengths)
        cell, inverse = np.unique(row * total + index, return_inverse=True)
        counts.append(np.bincount(cell // total, minlength=len(some)))
        indices.append(cell % total)
        values.append(np.bincount(inverse, value) / count)
    return _Sparse(_starts(np.concatenate(counts)), np.concatenate(indices), np.concatenate(values))


def _transpose(encoding: _Sparse, first: int, total: int) -> _Sparse:
    """Returns the columns of the rows from `first` on as rows, numbered from there."""
    begin = encoding.start[first]
    column = encoding.column[begin:]
    row = np.repeat(np.arange(total - first), np.diff(encoding.start[first:]))
    order = np.argsort(column, kind="stable")
    return _Sparse(_starts(np.bincount(column, minlength=total)), row[order], encoding.value[begin:][order])


def _starts(counts: np.ndarray | list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
