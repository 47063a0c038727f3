"""Embeddings of made-up people, some without a face, as arrays and as files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from deskpro_jax.embedding.files import Part
from deskpro_jax.embedding.job import Work
from deskpro_jax.embedding.photo_list import Listed
from deskpro_jax.evaluation.similarity import Similarity, equal_parts

PARTS, WIDTH = 14, 16
DIMENSION = PARTS * WIDTH
SIMILARITY = equal_parts(DIMENSION, {"face": 7, "body": 7}, ("face",))


def parts_of(embeddings: np.ndarray, count: int) -> Similarity:
    """Returns the similarity of embeddings of one stream with so many parts."""
    return equal_parts(embeddings.shape[1], {"body": count})


class People(NamedTuple):
    """Embeddings [images, DIMENSION], who they show, and whether with a face."""

    vectors: np.ndarray
    identity: np.ndarray
    has_face: np.ndarray


def people(count: int, identities: int, seed: int, noise: float = 0.15, faceless: float = 0.25) -> People:
    """Draws images of people whose centres depend on nothing but their number."""
    centres = np.random.default_rng(99).standard_normal((identities, PARTS, WIDTH))
    rng = np.random.default_rng(seed)
    identity = rng.integers(0, identities, count)
    vectors = centres[identity] + noise * np.sqrt(WIDTH) * rng.standard_normal((count, PARTS, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    has_face = rng.random(count) >= faceless
    vectors[~has_face, : PARTS // 2] = 0
    return People(vectors.reshape(count, -1).astype(np.float32), identity, has_face)


def write(
    drawn: People, out: Path, part: int = 64, checksum: str = "abc", stored: str = "float32", **settings: object
) -> Path:
    """Writes embeddings as the embed command does, with more settings if wanted."""
    listed = [Listed(f"{i:04d}", f"photos/{i:04d}.jpg", None, int(who), 1) for i, who in enumerate(drawn.identity)]
    work = Work(out, out.suffix[1:] or "parquet", part)
    settings |= {
        "model_checksum": checksum,
        "streams": ["face", "body"],
        "parts": PARTS,
        "dimension": DIMENSION,
        "stored": stored,
        "flip": True,
    }
    for number in work.begin(listed, settings):
        rows = slice(*work.ranges[number : number + 2])
        work.write(number, Part(listed[rows], drawn.has_face[rows], drawn.vectors[rows]), [])
    work.finish()
    return out
