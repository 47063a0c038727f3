"""Re-ranking by k-reciprocal neighbours, in blocks: no matrix of all images against all images is ever held."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy import sparse

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.similarity import Similarity

_MIB = 1 << 20
_BYTES_PER_CELL = 30  # of one image compared with another, in float32
_BYTES_PER_IMAGE = 8_000  # neighbours and encodings, about 6 kB with k1 = 20 and k2 = 6


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
            query: embeddings [queries, dimension].
            gallery: embeddings [gallery images, dimension].

        Raises:
            InputError: the memory is not enough for a single one.
        """
        total, scale = len(query) + len(gallery), max(1, query.itemsize // 4)
        row = _BYTES_PER_CELL * scale * total
        fixed = query.nbytes + gallery.nbytes + _BYTES_PER_IMAGE * total
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
        """Returns the parameters that decide the result, by name."""
        return {"k1": self.k1, "k2": self.k2, "lambda": self.original_weight}


def rerank(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    similarity: Similarity,
    k1: int = 20,
    k2: int = 6,
    original_weight: float = 0.3,
    block: int = 256,
) -> Iterator[np.ndarray]:
    """Computes k-reciprocal re-ranked distances, to be given to `score_from_distances`.

    Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. The original distance is
    the square of `Similarity.distances` over its largest value in the row, as in the authors' code. An image that has
    no part at all is a neighbour of itself only.

    Args:
        query: embeddings [queries, dimension].
        gallery: embeddings [gallery images, dimension].
        similarity: the similarity of these embeddings.
        k1: neighbours that must be mutual.
        k2: neighbours whose encodings are averaged.
        original_weight: lambda, the weight of the original distance in the result.
        block: images compared with all others at a time; memory beside a copy of the embeddings is about
            30 * block * (queries + gallery images) bytes, and some kilobytes per image.

    Returns:
        Iterator over blocks of rows of [queries, gallery images] distances in [0, 1], smaller is nearer.

    Raises:
        InputError: shapes or parameters don't fit.
    """
    if k1 < 1 or k2 < 1 or not 0 <= original_weight <= 1 or block < 1:
        raise InputError(
            f"k1 {k1}, k2 {k2}, original_weight {original_weight}, block {block}; "
            "expected k1, k2 and block of at least 1 and a weight between 0 and 1."
        )
    query, gallery = similarity.check(query, gallery)
    return _reranked(query, gallery, similarity, k1, k2, original_weight, block)


def _reranked(
    query: np.ndarray,
    gallery: np.ndarray,
    similarity: Similarity,
    k1: int,
    k2: int,
    original_weight: float,
    block: int,
) -> Iterator[np.ndarray]:
    queries, size = len(query), len(gallery)
    images = _Images(np.concatenate([query, gallery]), similarity)
    nearest, largest = _neighbours(images, max(k1 + 1, k2), block)
    encoding = _average(_encode(images, nearest, largest, k1), nearest[:, :k2])
    of_queries = encoding[:queries]
    by_image = encoding[queries:].T.tocsr()  # image of a neighbourhood -> the gallery images whose encoding has it
    for first in range(0, queries, block):
        rows = np.arange(first, min(first + block, queries))
        result = images.distances(rows, slice(queries, None)) / largest[rows, None]
        result *= original_weight
        for i, row in enumerate(rows):
            mine = slice(*of_queries.indptr[row : row + 2])
            theirs = by_image[of_queries.indices[mine]]
            overlap = np.minimum(np.repeat(of_queries.data[mine], np.diff(theirs.indptr)), theirs.data)
            shared = np.bincount(theirs.indices, overlap, minlength=size)
            result[i] += (1 - original_weight) * (1 - shared / (2 - shared))  # Jaccard distance; rows sum to one
        yield result


class _Images:
    """Queries and gallery images together, and their distances as the authors' code takes them."""

    def __init__(self, embeddings: np.ndarray, similarity: Similarity):
        self.embeddings, self._similarity = embeddings, similarity
        self._present = similarity.present(embeddings)

    def distances(self, some: np.ndarray, others: np.ndarray | slice) -> np.ndarray:
        """Returns the squares of (2 - 2 similarity) of the images `some` [n] and `others`, [n, others]."""
        distances = self._similarity.distances(self.embeddings[some], self.embeddings[others], self._present[others])
        return np.square(distances, out=distances)


def _neighbours(images: _Images, count: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each image's `count` nearest images, itself first, equal ones in order, and its largest distance."""
    total = len(images.embeddings)
    count = min(count, total)
    nearest = np.empty((total, count), np.int64)
    largest = np.empty(total)
    for first in range(0, total, block):
        rows = np.arange(first, min(first + block, total))
        distances = images.distances(rows, slice(None))
        largest[rows] = distances.max(axis=1)
        distances[np.arange(len(rows)), rows] = -1  # itself first, before exact copies
        for i, line in zip(rows, distances, strict=True):
            candidates = np.flatnonzero(line <= np.partition(line, count - 1)[count - 1])
            nearest[i] = candidates[np.argsort(line[candidates], kind="stable")[:count]]
    absent = ~images.embeddings.any(axis=1)
    nearest[absent] = np.flatnonzero(absent)[:, None]
    largest[largest == 0] = 1
    return nearest, largest


def _reciprocal(nearest: np.ndarray) -> list[np.ndarray]:
    """Returns for each image those of its nearest images that have it among theirs."""
    return [row[(nearest[row] == i).any(axis=1)] for i, row in enumerate(nearest)]


def _encode(images: _Images, nearest: np.ndarray, largest: np.ndarray, k1: int) -> sparse.csr_array:
    """Returns each image's k-reciprocal feature: Gaussian weights over its expanded mutual neighbours, sum one."""
    mutual = _reciprocal(nearest[:, : k1 + 1])
    half = [set(row.tolist()) for row in _reciprocal(nearest[:, : int(np.around(k1 / 2)) + 1])]
    columns, values = [], []
    for i, row in enumerate(mutual):
        own = set(row.tolist())
        expanded = own.union(*(half[j] for j in own if 3 * len(half[j] & own) > 2 * len(half[j])))
        column = np.array(sorted(expanded), np.int32)
        weights = np.exp(-images.distances(np.array([i]), column)[0].astype(np.float64) / largest[i])
        columns.append(column)
        values.append(weights / weights.sum())
    starts = np.cumsum([0, *map(len, columns)])
    return sparse.csr_array((np.concatenate(values), np.concatenate(columns), starts), shape=(len(mutual),) * 2)


def _average(encoding: sparse.csr_array, nearest: np.ndarray) -> sparse.csr_array:
    """Returns the mean of the encodings of each image's nearest images."""
    total, count = nearest.shape
    starts = np.arange(0, total * count + 1, count)
    chooses = sparse.csr_array((np.full(total * count, 1 / count), nearest.ravel(), starts), shape=(total, total))
    return chooses @ encoding
