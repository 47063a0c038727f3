"""Approximate search of large galleries with faiss: an inverted file (IVF) or a graph (HNSW) kept on disk."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.nearest import Neighbours, empty, merge, present
from deskpro_jax.workdir import write_json

METHODS = ("ivf", "hnsw")
HNSW_EFFORT = 128  # candidates kept
IVF_SHARE = 4  # a quarter of the lists is looked through
_FILE = "index.json"
_LINKS = 32  # of a node of the graph
_POINTS = 39  # for each list of an inverted file, the least that faiss trains with
_SEED = 0


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
    """The gallery images that have the same streams: columns of an embedding, rows of the gallery, their index."""

    streams: tuple[str, ...]
    rows: np.ndarray
    index: Any


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

    def search(self, query: np.ndarray, k: int, effort: int | None = None) -> Neighbours:
        """Finds about the k most similar gallery images of every query, as `deskpro_jax.nearest.nearest` does exactly.

        Args:
            query: [queries, parts * dimension].
            k: how many.
            effort: lists looked through (IVF; None: a quarter), candidates kept (HNSW; None: `HNSW_EFFORT`); more find
                more and take longer. Twice as many where a query lacks a face that the images have.

        Returns:
            The neighbours; similarities are those of vectors rounded to float16.
        """
        faiss = require_faiss()
        best = empty(len(query), k)
        each = self._parts // len(self._streams)
        by_stream = _streams_of(query, self._parts, len(self._streams))
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
                shared = each * len(common)
                # The index is laid out by all streams of its images, so a part of them needs a wider search.
                parameters = self._parameters(faiss, group.index, k, effort, 1 if len(common) == len(columns) else 2)
                products, places = group.index.search(np.ascontiguousarray(vectors), k, params=parameters)
                for i, near, place in zip(chosen, products / shared, places, strict=True):
                    found = place >= 0
                    rows = group.rows[place[found]]
                    merge(best, int(i), rows, near[found], np.full(len(rows), shared))
        return best

    def _parameters(self, faiss: Any, index: Any, k: int, effort: int | None, times: int) -> Any:
        if self.method == "ivf":
            lists = times * (effort or max(1, index.nlist // IVF_SHARE))
            return faiss.SearchParametersIVF(nprobe=min(lists, index.nlist))
        return faiss.SearchParametersHNSW(efSearch=max(times * (effort or HNSW_EFFORT), k))


def build_index(gallery: EmbeddingSet, method: str, folder: Path | None = None) -> GalleryIndex:
    """Builds an index; the gallery is read twice, block by block.

    Args:
        gallery: what to index.
        method: "ivf" or "hnsw".
        folder: where to keep it; None keeps it in memory alone.

    Raises:
        InputError: the method is unknown, faiss is not installed, the folder is there, or the gallery holds nothing.
    """
    faiss = require_faiss()
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}.")
    if folder is not None and folder.exists():
        raise InputError(f"{folder} is there already: give a new name.")
    groups = []
    for streams, rows in _members(gallery).items():
        vectors = gallery.dimension // len(gallery.streams) * len(streams)
        index = _empty_index(faiss, method, vectors, len(rows))
        sample = rows
        if len(rows) > _POINTS * 2 * _lists(len(rows)):
            generator = np.random.default_rng(_SEED)
            sample = np.sort(generator.choice(rows, _POINTS * 2 * _lists(len(rows)), replace=False))
        index.train(np.concatenate(list(_vectors(gallery, streams, sample))))
        for block in _vectors(gallery, streams, rows):
            index.add(block)
        groups.append(_Group(streams, rows, index))
    if not groups:
        raise InputError(f"{gallery.path} holds no embedding that could be searched.")
    if folder is not None:
        _write(faiss, gallery, method, groups, folder)
    return GalleryIndex(gallery, method, groups)


def _members(gallery: EmbeddingSet) -> dict[tuple[str, ...], np.ndarray]:
    """Returns the rows of the gallery by the streams they have."""
    nothing = np.zeros((0, len(gallery.streams)), np.bool_)
    blocks = (_streams_of(block, gallery.parts, len(gallery.streams)) for block in gallery.blocks())
    have = np.concatenate([nothing, *blocks])
    members = {}
    for pattern in np.unique(have, axis=0)[::-1]:
        streams = tuple(name for name, there in zip(gallery.streams, pattern, strict=True) if there)
        if streams:
            members[streams] = np.flatnonzero((have == pattern).all(axis=1))
    return members


def _streams_of(embeddings: np.ndarray, parts: int, streams: int) -> np.ndarray:
    """Returns which streams embeddings have, [images, streams] bool."""
    each = present(embeddings, parts).reshape(len(embeddings), streams, -1)
    return np.asarray(each.any(axis=2))


def _lists(count: int) -> int:
    """Returns how many lists an inverted file of so many vectors has."""
    return max(1, min(math.isqrt(count), count // _POINTS))


def _empty_index(faiss: Any, method: str, dimension: int, count: int) -> Any:
    half = faiss.ScalarQuantizer.QT_fp16
    if method == "hnsw":
        return faiss.IndexHNSWSQ(dimension, half, _LINKS, faiss.METRIC_INNER_PRODUCT)
    coarse = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(coarse, dimension, _lists(count), half, faiss.METRIC_INNER_PRODUCT, False)
    index.cp.spherical, index.cp.seed = True, _SEED
    index.own_fields = True
    coarse.this.disown()
    return index


def _vectors(gallery: EmbeddingSet, streams: tuple[str, ...], rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the columns of some streams of some rows (ascending), block by block."""
    width = gallery.dimension // len(gallery.streams)
    columns = np.concatenate([np.arange(width) + width * gallery.streams.index(name) for name in streams])
    start = 0
    for block in gallery.blocks():
        low, high = np.searchsorted(rows, (start, start + len(block)))
        if high > low:
            yield np.ascontiguousarray(block[np.ix_(rows[low:high] - start, columns)])
        start += len(block)


def _fingerprint(gallery: EmbeddingSet) -> str:
    """Returns a digest of what a gallery is: its settings, photos and labels."""
    digest = hashlib.sha256(json.dumps(gallery.settings, sort_keys=True).encode())
    for file in gallery.files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _write(faiss: Any, gallery: EmbeddingSet, method: str, groups: Sequence[_Group], folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        for number, group in enumerate(groups):
            faiss.write_index(group.index, str(partial / f"{number}.faiss"))
            np.save(partial / f"{number}.rows.npy", group.rows)
        record = {"method": method, "gallery": _fingerprint(gallery), "groups": [list(g.streams) for g in groups]}
        write_json(partial / _FILE, record)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
        groups = [
            _Group(
                tuple(streams),
                np.load(folder / f"{number}.rows.npy"),
                faiss.read_index(str(folder / f"{number}.faiss")),
            )
            for number, streams in enumerate(record["groups"])
        ]
        return GalleryIndex(gallery, record["method"], groups)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{folder} is damaged ({reason}): remove it and build it again.") from error
