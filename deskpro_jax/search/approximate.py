"""Approximate search of large galleries with faiss: an inverted file (IVF) or a graph (HNSW) kept on disk.

An index finds candidates by shortened vectors, their coordinates in the directions along which the gallery varies most;
the candidates are then compared by all their numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.runtime import cores
from deskpro_jax.search.exact import Neighbours, empty, merge
from deskpro_jax.search.pca import SEED, SHORTENED, directions_of, members, sample_of, shorten, streams_of, vectors_of
from deskpro_jax.storage.files import write_json

METHODS = ("ivf", "hnsw")
HNSW_EFFORT = 256  # candidates kept
IVF_SHARE, IVF_LEAST = 2, 16  # half of the lists are looked through, at least so many
CANDIDATES = 256  # of an inverted file that are compared by all their numbers, at least ...
_A_RESULT = 10  # ... and for each that is asked for
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
        raise InputError(
            f"approximate search needs faiss ({error}): pip install 'deskpro_jax[faiss]' brings it, or search exactly."
        ) from error
    return faiss


@dataclass(frozen=True)
class _Group:
    """The gallery images that have the same streams.

    Attributes:
        streams: which; columns of an embedding.
        rows: [images] positions in the gallery.
        index: of their shortened vectors.
        directions: [numbers, SHORTENED] that shorten them, None where they are that short.
        vectors: [images, numbers] float16.
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
        self._streams, self._parts = gallery.streams, gallery.parts
        self._all_parts = gallery.missing_face == "zeros"  # those that an image lacks count as zeros

    def search(self, query: np.ndarray, k: int, effort: int | None = None) -> Neighbours:
        """Finds about the k most similar gallery images of every query, as `exact.nearest` does exactly.

        Args:
            query: [queries, parts * dimension].
            k: how many.
            effort: lists looked through (IVF; None: half of them), candidates kept and compared (HNSW; None:
                `HNSW_EFFORT`); more find more and take longer. Twice as many where a query lacks a face that the images
                have.

        Returns:
            The neighbours; similarities are those of vectors rounded to float16.
        """
        faiss = require_faiss()
        best = empty(len(query), k)
        each = self._parts // len(self._streams)
        by_stream = streams_of(query, self._parts, len(self._streams))
        width = query.shape[1] // len(self._streams)
        for group in self.groups:
            columns = [self._streams.index(name) for name in group.streams]
            for pattern in np.unique(by_stream, axis=0):  # queries with and without a face
                common = [i for i in columns if pattern[i]]
                chosen = np.flatnonzero((by_stream == pattern).all(axis=1))
                if not common:
                    continue
                # A stream that the query lacks is zero in it and adds nothing to the products.
                vectors = np.concatenate([query[chosen, i * width : (i + 1) * width] for i in columns], axis=1)
                vectors = vectors.astype(np.float32, copy=False)
                shared = each * len(common)
                counted = self._parts if self._all_parts else shared
                # The index is laid out by all streams of its images, so a part of them needs a wider search.
                candidates, parameters = self._effort(faiss, group, k, effort, 1 if len(common) == len(columns) else 2)
                short = np.ascontiguousarray(shorten(vectors, group.directions))
                _, places = group.index.search(short, candidates, params=parameters)
                for i, rows, products in zip(chosen, *_compare(vectors, places, group), strict=True):
                    merge(best, int(i), rows, products / counted, np.full(len(rows), shared))
        return best

    def _effort(self, faiss: Any, group: _Group, k: int, effort: int | None, times: int) -> tuple[int, Any]:
        """Returns how many candidates to look for, and faiss's parameters."""
        if self.method == "ivf":
            lists = min(times * (effort or max(IVF_LEAST, group.index.nlist // IVF_SHARE)), group.index.nlist)
            wanted, parameters = times * max(CANDIDATES, _A_RESULT * k), faiss.SearchParametersIVF(nprobe=lists)
        else:
            wanted = max(times * (effort or HNSW_EFFORT), k)
            parameters = faiss.SearchParametersHNSW(efSearch=wanted)
        return max(1, min(wanted, len(group.rows))), parameters


def _compare(vectors: np.ndarray, places: np.ndarray, group: _Group) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the gallery rows of each query's candidates, and their products with it by all numbers."""

    def one(query: int) -> tuple[np.ndarray, np.ndarray]:
        found = np.sort(places[query][places[query] >= 0])  # in the order in which they lie on disk
        return group.rows[found], group.vectors[found].astype(np.float32) @ vectors[query]

    with ThreadPoolExecutor(cores.count()) as pool:
        compared = list(pool.map(one, range(len(vectors))))
    return [rows for rows, _ in compared], [products for _, products in compared]


def build_index(gallery: EmbeddingSet, method: str, folder: Path | None = None) -> GalleryIndex:
    """Builds an index; the gallery is read four times, block by block.

    Args:
        gallery: what to index.
        method: "ivf" or "hnsw".
        folder: where to keep it, with the vectors in float16; None keeps it in memory alone.

    Raises:
        InputError: the method is unknown, faiss is not installed, the folder is there, or the gallery holds nothing.
    """
    faiss = require_faiss()
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}.")
    if folder is not None and folder.exists():
        raise InputError(f"{folder} is there already: give a new name.")
    if folder is None:
        return GalleryIndex(gallery, method, _build(faiss, gallery, method, None))
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        groups = _build(faiss, gallery, method, partial)
        record = {"method": method, "gallery": _fingerprint(gallery), "groups": [list(g.streams) for g in groups]}
        write_json(partial / _FILE, record)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_index(gallery, folder)


def _build(faiss: Any, gallery: EmbeddingSet, method: str, folder: Path | None) -> list[_Group]:
    """Returns the indexes of a gallery, having written them into a folder, if there is one."""
    groups: list[_Group] = []
    for streams, rows in members(gallery).items():
        width = gallery.dimension // len(gallery.streams) * len(streams)
        directions = directions_of(gallery, streams, rows) if width > SHORTENED else None
        index = _empty_index(faiss, method, min(width, SHORTENED), len(rows))
        sample = sample_of(rows, _POINTS * 2 * _lists(len(rows)))
        index.train(np.concatenate([shorten(block, directions) for block in vectors_of(gallery, streams, sample)]))
        stem = None if folder is None else folder / str(len(groups))
        if stem is None:
            vectors: np.ndarray = np.empty((len(rows), width), np.float16)
        else:
            vectors = np.lib.format.open_memmap(f"{stem}.vectors.npy", "w+", np.float16, (len(rows), width))
        done = 0
        for block in vectors_of(gallery, streams, rows):
            index.add(shorten(block, directions))
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
    """Returns how many lists an inverted file of so many vectors has."""
    return max(1, min(math.isqrt(count), count // _POINTS))


def _empty_index(faiss: Any, method: str, dimension: int, count: int) -> Any:
    half = faiss.ScalarQuantizer.QT_fp16
    if method == "hnsw":
        return faiss.IndexHNSWSQ(dimension, half, _LINKS, faiss.METRIC_INNER_PRODUCT)
    coarse = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(coarse, dimension, _lists(count), half, faiss.METRIC_INNER_PRODUCT, False)
    index.cp.spherical, index.cp.seed = True, SEED
    index.own_fields = True
    coarse.this.disown()
    return index


def _fingerprint(gallery: EmbeddingSet) -> str:
    """Returns a digest of what a gallery is: its settings, photos and labels."""
    digest = hashlib.sha256(json.dumps(gallery.settings, sort_keys=True).encode())
    for file in gallery.files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def open_index(gallery: EmbeddingSet, folder: Path) -> GalleryIndex:
    """Opens an index that `build_index` kept.

    Args:
        gallery: the gallery that it was built from.
        folder: where it is.

    Raises:
        MissingInputError: there is no index.
        InputError: it is of another gallery, or damaged.
    """
    faiss = require_faiss()
    if not (folder / _FILE).is_file():
        raise MissingInputError(f"no index at {folder}: build it first, or correct --index.")
    try:
        record = json.loads((folder / _FILE).read_text(encoding="utf-8"))
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
