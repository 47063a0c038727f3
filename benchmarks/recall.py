"""Recall and speed of approximate search against exact search, over galleries of made-up embeddings.

    python -m benchmarks.recall
    python -m benchmarks.recall --sizes 10000,100000 --queries 200 --out recall.json

An embedding has 14 parts of 512 numbers, as the paper's network gives. People differ along `LATENT` directions a
stream, the first of which matter most; photos of a person differ by look (body alone), by pose along the same
directions, and by noise in every number; a fifth shows no face. Queries are other photos of people in the gallery.
Recall at k is the share of the k nearest that an index finds. Each method answers all queries in one call, from files
that were read before; "build" is the time that the index takes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.embedding.files import Part
from deskpro_jax.embedding.job import Work
from deskpro_jax.embedding.photo_list import Listed
from deskpro_jax.errors import InputError, MissingInputError, RunError, exit_code
from deskpro_jax.search.approximate import METHODS, build_index
from deskpro_jax.search.exact import Neighbours, nearest
from deskpro_jax.storage.files import write_json

PARTS, WIDTH = 14, 512
LATENT = 96  # directions a stream along which people and photos differ
PHOTOS = 12  # of a person
FACELESS = 0.2
RANKS = (1, 10, 20)
_BLOCK = 2048
_LOOK, _POSE, _NOISE = 0.6, 0.6, 0.7  # spread of looks, poses and noise; people have 1


class People:
    """Makes embeddings of photos of people, the same for the same seed."""

    def __init__(self, identities: int, seed: int = 0):
        """Draws the people.

        Args:
            identities: how many.
            seed: of everything.
        """
        rng = np.random.default_rng(seed)
        weight = (1.0 + np.arange(LATENT)) ** -0.5
        self._people = rng.standard_normal((identities, 2, LATENT), np.float32) * weight.astype(np.float32)
        self._weight, self._seed = weight.astype(np.float32), seed
        # Rows of unit length in each part, so that a direction changes all parts of its stream alike.
        spread = rng.standard_normal((2, LATENT, PARTS // 2 * WIDTH), np.float32) / np.sqrt(np.float32(WIDTH))
        self._spread = spread

    def photos(self, count: int, number: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields embeddings [photos, PARTS * WIDTH] float32, identities and whether there is a face, block by block.

        Args:
            count: how many photos.
            number: which drawing of photos: others for another number.
        """
        for start in range(0, count, _BLOCK):
            rng = np.random.default_rng([self._seed, number, start])
            size = min(_BLOCK, count - start)
            identity = rng.integers(0, len(self._people), size)
            latent = self._people[identity] + _POSE * self._weight * rng.standard_normal((size, 2, LATENT), np.float32)
            looks = np.random.default_rng([self._seed, 7]).standard_normal((64, LATENT), np.float32)
            latent[:, 1] += _LOOK * self._weight * looks[rng.integers(0, 64, size)]
            vectors = np.stack([latent[:, i] @ self._spread[i] for i in range(2)], axis=1)
            vectors = vectors.reshape(size, PARTS, WIDTH)
            size_of_signal = np.float32(np.sqrt(np.square(self._weight).sum() / WIDTH))
            vectors += _NOISE * size_of_signal * rng.standard_normal(vectors.shape, np.float32)
            vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
            has_face = rng.random(size) >= FACELESS
            vectors[~has_face, : PARTS // 2] = 0
            yield vectors.reshape(size, -1), identity, has_face


def write_gallery(people: People, count: int, out: Path) -> EmbeddingSet:
    """Writes a gallery in float16 as `deskpro_jax.embed` does.

    Args:
        people: who are on the photos.
        count: photos.
        out: a new folder.
    """
    work = Work(out, "npy", _BLOCK)
    settings = {
        "model_checksum": "made up",
        "streams": ["face", "body"],
        "parts": PARTS,
        "dimension": PARTS * WIDTH,
        "stored": "float16",
    }
    photos = [Listed(f"{i:07d}", f"{i:07d}.jpg") for i in range(count)]
    blocks = people.photos(count, 0)
    for number in work.begin(photos, settings):
        vectors, _, has_face = next(blocks)
        work.write(number, Part(photos[slice(*work.ranges[number : number + 2])], has_face, vectors), [])
    work.finish()
    return EmbeddingSet(out)


def recall(found: Neighbours, exact: Neighbours, k: int) -> float:
    """Returns the share of the k nearest images that were found."""
    pairs = zip(found.rows[:, :k], exact.rows[:, :k], strict=True)
    return float(np.mean([len(set(one.tolist()) & set(other.tolist())) / k for one, other in pairs]))


def measure(size: int, queries: int, folder: Path, methods: Sequence[str] = METHODS) -> list[dict[str, Any]]:
    """Measures exact search and each method on one gallery.

    Args:
        size: images in the gallery.
        queries: how many.
        folder: where files may go.
        methods: of `deskpro_jax.search.approximate.METHODS`.

    Returns:
        For each method `method`, `gallery`, `queries`, `build_s`, `queries_per_s` and `recall@K`.
    """
    people = People(max(1, size // PHOTOS))
    gallery = write_gallery(people, size, folder / "gallery")
    query = np.concatenate([vectors for vectors, _, _ in people.photos(queries, 1)])
    begun = time.perf_counter()
    exact = nearest(query, gallery.blocks(), max(RANKS), gallery.similarity)
    rows = [_row("exact", size, queries, 0.0, time.perf_counter() - begun, exact, exact)]
    _say(rows[-1])
    for method in methods:
        begun = time.perf_counter()
        index = build_index(gallery, method, folder / method)
        built = time.perf_counter() - begun
        begun = time.perf_counter()
        found = index.search(query, max(RANKS))
        rows.append(_row(method, size, queries, built, time.perf_counter() - begun, found, exact))
        _say(rows[-1])
    return rows


def _row(
    method: str, size: int, queries: int, built: float, seconds: float, found: Neighbours, exact: Neighbours
) -> dict[str, Any]:
    return {
        "method": method,
        "gallery": size,
        "queries": queries,
        "build_s": round(built, 1),
        "queries_per_s": round(queries / seconds, 1),
        **{f"recall@{k}": round(recall(found, exact, k), 4) for k in RANKS},
    }


def _say(row: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in row.items()), file=sys.stderr)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] + ["---:"] * (len(rows[0]) - 1), *([str(v) for v in row.values()] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures recall and speed of each index against exact search; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall", description=main.__doc__)
    parser.add_argument("--sizes", default="10000,100000", help="images of the galleries (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="for up to 29 kB an image and method (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="JSON file to write as well")
    options = parser.parse_args(arguments)
    try:
        sizes = [int(size) if size.strip().isdecimal() else 0 for size in options.sizes.split(",")]
        if min(sizes) < 1 or options.queries < 1:
            raise InputError(
                f"--sizes {options.sizes} --queries {options.queries}: expected whole numbers of 1 or more."
            )
        rows = []
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                rows += measure(size, options.queries, Path(folder))
    except (InputError, MissingInputError, RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    record = {
        "rows": rows,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if options.out is not None:
        write_json(options.out, record)
    print(table(rows))
    print(json.dumps({name: value for name, value in record.items() if name != "rows"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
