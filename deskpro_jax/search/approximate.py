"""Approximate search of large galleries with faiss: an inverted file (IVF) or a graph (HNSW) kept on disk.

An index finds candidates by the vectors' PCA projections; the candidates are then compared over all dimensions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError, MissingInputError, missing_package
from deskpro_jax.runtime import cores
from deskpro_jax.search.exact import Neighbours, empty, merge
from deskpro_jax.search.pca import PROJECTED, SEED, directions_of, members, project, sample_of, vectors_of
from deskpro_jax.storage.files import atomic_folder, require_json, write_json

METHODS = ("ivf", "hnsw")
HNSW_EFFORT = 256  # candidates kept
IVF_FRACTION, IVF_LEAST = 2, 16  # one half of the lists is searched, at least so many
CANDIDATES = 256  # of an inverted file that are compared over all dimensions, at least ...
_PER_RESULT = 10  # ... and for each result that is asked for
_FILE = "index.json"
_LINKS = 32  # of a node of the graph
_POINTS = 39  # for each list of an inverted file, the least that faiss trains with


def require_faiss() -> Any:
    """Returns the module faiss.

    Raises:
        InputError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise missing_package("approximate search (--method exact does without)", "faiss", error) from error
    return faiss


@dataclass(frozen=True)
class _Group:
    """The gallery images that have the same streams.

    Attributes:
        streams: names of those streams.
        rows: [images] positions in the gallery.
        index: of their projected vectors.
        directions: [dimensions, PROJECTED] principal directions, None where the vectors are not longer than that.
        vectors: [images, dimensions] float16.
    """

    streams: tuple[str, ...]
    rows: np.ndarray
    index: Any
    directions: np.ndarray | None
    vectors: np.ndarray


class GalleryIndex:
    """An index of a gallery; images with and without a face are in one each, so that each pair can be compared by the
    streams that both have.

    Attributes:
        method: "ivf" or "hnsw".
        groups: the indexes.
    """

    def __init__(self, gallery: EmbeddingSet, method: str, groups: Sequence[_Group]):
        """Holds what `build_index` or `open_index` made."""
        self.method, self.groups = method, tuple(groups)
        self._similarity = gallery.similarity

    def search(
        self, query: np.ndarray, k: int, effort: int | None = None, left_out: np.ndarray | None = None
    ) -> Neighbours:
        """Finds about the k most similar gallery images of every query, as `exact.nearest` does exactly.

        Args:
            query: [queries, dimension].
            k: how many.
            effort: lists looked through (IVF; None: half of them), candidates kept and compared (HNSW; None:
                `HNSW_EFFORT`); more find more and take longer. Twice as many where a query lacks a face that the images
                have.
            left_out: [gallery images] bool, images that are in no result; None for none.

        Returns:
            The neighbours; similarities are those of vectors rounded to float16.
        """
        faiss = require_faiss()
        best = empty(len(query), k)
        query = self._similarity.weigh(query)
        has = self._similarity.present_streams(query)
        columns = self._similarity.columns()
        for group in self.groups:
            for pattern in np.unique(has, axis=0):  # queries with and without a face
                theirs = [name for name, there in zip(self._similarity.names, pattern, strict=True) if there]
                common = [name for name in group.streams if name in theirs]
                if not common:
                    continue
                chosen = np.flatnonzero((has == pattern).all(axis=1))
                # A stream that the query lacks is zero in it and adds nothing to the products.
                vectors = np.concatenate([query[chosen, columns[name]] for name in group.streams], axis=1)
                vectors = vectors.astype(np.float32, copy=False)
                shared = self._similarity.select(common)
                # The index is laid out by all streams of its images, so a part of them needs a wider search.
                times = 1 if len(common) == len(group.streams) else 2
                candidates, parameters = self._effort(faiss, group, k, effort, times)
                if left_out is not None:
                    parameters.sel = faiss.IDSelectorBatch(np.flatnonzero(~left_out[group.rows]))
                projected = np.ascontiguousarray(project(vectors, group.directions))
                _, positions = group.index.search(projected, candidates, params=parameters)
                for i, rows, products in zip(chosen, *_compare(vectors, positions, group), strict=True):
                    values = self._similarity.mean(products, shared.total_weight)
                    merge(best, int(i), rows, values, np.full(len(rows), shared.parts))
        return best

    def _effort(self, faiss: Any, group: _Group, k: int, effort: int | None, times: int) -> tuple[int, Any]:
        """Returns the number of candidates, and faiss's parameters."""
        if self.method == "ivf":
            lists = min(times * (effort or max(IVF_LEAST, group.index.nlist // IVF_FRACTION)), group.index.nlist)
            candidates, parameters = times * max(CANDIDATES, _PER_RESULT * k), faiss.SearchParametersIVF(nprobe=lists)
        else:
            candidates = max(times * (effort or HNSW_EFFORT), k)
            parameters = faiss.SearchParametersHNSW(efSearch=candidates)
        return max(1, min(candidates, len(group.rows))), parameters


def _compare(vectors: np.ndarray, positions: np.ndarray, group: _Group) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the gallery rows of each query's candidates, and their dot products with it over all dimensions."""

    def one(query: int) -> tuple[np.ndarray, np.ndarray]:
        candidates = np.sort(positions[query][positions[query] >= 0])  # in the order in which they lie on disk
        return group.rows[candidates], group.vectors[candidates].astype(np.float32) @ vectors[query]

    with ThreadPoolExecutor(cores.count()) as pool:
        compared = list(pool.map(one, range(len(vectors))))
    return [rows for rows, _ in compared], [products for _, products in compared]


def build_index(gallery: EmbeddingSet, method: str, folder: Path | None = None) -> GalleryIndex:
    """Builds an index; the gallery is read four times, block by block.

    Args:
        gallery: what to index.
        method: "ivf" or "hnsw".
        folder: where to keep it, with the vectors in float16; None keeps it in memory only.

    Raises:
        InputError: the method is unknown, faiss is not installed, the folder exists already, or the gallery holds
            nothing.
    """
    faiss = require_faiss()
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}.")
    if folder is not None and folder.exists():
        raise InputError(f"{folder} already exists: choose another name.")
    if folder is None:
        return GalleryIndex(gallery, method, _build(faiss, gallery, method, None))
    with atomic_folder(folder) as partial:
        groups = _build(faiss, gallery, method, partial)
        record = {"method": method, "gallery": _fingerprint(gallery), "groups": [list(g.streams) for g in groups]}
        write_json(partial / _FILE, record)
    return open_index(gallery, folder)


def _build(faiss: Any, gallery: EmbeddingSet, method: str, folder: Path | None) -> list[_Group]:
    """Returns the indexes of a gallery, and writes them into the folder where one is given."""
    groups: list[_Group] = []
    for streams, rows in members(gallery).items():
        width = gallery.similarity.select(streams).total_dim
        directions = directions_of(gallery, streams, rows) if width > PROJECTED else None
        index = _empty_index(faiss, method, min(width, PROJECTED), len(rows))
        sample = sample_of(rows, _POINTS * 2 * _lists(len(rows)))
        index.train(np.concatenate([project(block, directions) for block in vectors_of(gallery, streams, sample)]))
        stem = None if folder is None else folder / str(len(groups))
        if stem is None:
            vectors: np.ndarray = np.empty((len(rows), width), np.float16)
        else:
            vectors = np.lib.format.open_memmap(f"{stem}.vectors.npy", "w+", np.float16, (len(rows), width))
        done = 0
        for block in vectors_of(gallery, streams, rows):
            index.add(project(block, directions))
            vectors[done : done + len(block)] = block
            done += len(block)
        groups.append(_Group(streams, rows, index, directions, vectors))
        if stem is not None:
            faiss.write_index(index, f"{stem}.faiss")
            np.save(f"{stem}.rows.npy", rows)
            if directions is not None:
                np.save(f"{stem}.directions.npy", directions)
    if not groups:
        raise InputError(f"{gallery.path} holds no embedding that could be searched.")
    return groups


def _lists(count: int) -> int:
    """Returns the number of lists of an inverted file of `count` vectors."""
    return max(1, min(math.isqrt(count), count // _POINTS))


def _empty_index(faiss: Any, method: str, dimension: int, count: int) -> Any:
    # No refine step of faiss's: it would hold the whole vectors in memory, which here stay on disk.
    recipe = f"HNSW{_LINKS}_SQfp16" if method == "hnsw" else f"IVF{_lists(count)},SQfp16"
    index = faiss.index_factory(dimension, recipe, faiss.METRIC_INNER_PRODUCT)
    if method == "ivf":
        index.by_residual = False
        index.cp.spherical, index.cp.seed = True, SEED
        index.cp.min_points_per_centroid = 1  # no warning of a single list for a small gallery
    return index


def _fingerprint(gallery: EmbeddingSet) -> str:
    """Returns a digest of the gallery's settings, photos and labels."""
    digest = hashlib.sha256(json.dumps(gallery.settings, sort_keys=True).encode())
    for file in gallery.files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def open_index(gallery: EmbeddingSet, folder: Path) -> GalleryIndex:
    """Opens an index that `build_index` wrote.

    Args:
        gallery: the gallery that it was built from.
        folder: of the index.

    Raises:
        MissingInputError: there is no index.
        InputError: it is of another gallery, or damaged.
    """
    faiss = require_faiss()
    if not (folder / _FILE).is_file():
        raise MissingInputError(f"no index at {folder}: build it first, or correct --index.")
    try:
        record = require_json(folder / _FILE, "remove the index and build it again")
        if record["gallery"] != _fingerprint(gallery):
            raise InputError(
                f"{folder} is the index of another gallery than {gallery.path}: remove it, or name another."
            )
        groups: list[_Group] = []
        for number, streams in enumerate(record["groups"]):
            directions = folder / f"{number}.directions.npy"
            groups.append(
                _Group(
                    tuple(streams),
                    np.load(folder / f"{number}.rows.npy"),
                    faiss.read_index(str(folder / f"{number}.faiss")),
                    np.load(directions) if directions.exists() else None,
                    np.load(folder / f"{number}.vectors.npy", mmap_mode="r"),
                )
            )
        return GalleryIndex(gallery, record["method"], groups)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{folder} is damaged ({reason}): remove it and build it again.") from error
