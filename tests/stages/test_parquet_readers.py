"""The current pandas, Polars and DuckDB read embeddings, and what they write again is read as embeddings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.embedding.files import Part
from deskpro_jax.embedding.job import Work
from deskpro_jax.embedding.photo_list import Listed

duckdb, pandas, polars = (pytest.importorskip(name) for name in ("duckdb", "pandas", "polars"))

DIMENSION, ROWS = 28, 7
SETTINGS = {"model_checksum": "abc", "streams": ["face", "body"], "parts": 14, "dimension": DIMENSION}
VECTORS = np.random.default_rng(0).standard_normal((ROWS, DIMENSION)).astype(np.float32)
PHOTOS = [Listed(f"ä/{i}", f"photos/{i}.jpg", None, None if i == 3 else i % 3, f"c{i}") for i in range(ROWS)]
IDENTITIES = [photo.identity for photo in PHOTOS]

COLUMNS = ("image_id", "identity", "embedding")
READERS: dict[str, Callable[[str], list[tuple[Any, ...]]]] = {
    "pandas": lambda path: list(pandas.read_parquet(path)[list(COLUMNS)].itertuples(index=False, name=None)),
    "polars": lambda path: polars.read_parquet(path, columns=list(COLUMNS)).select(COLUMNS).rows(),
    "duckdb": lambda path: duckdb.sql(f"SELECT {', '.join(COLUMNS)} FROM '{path}'").fetchall(),
}
WRITERS: dict[str, Callable[[str, str], Any]] = {
    "pandas": lambda source, target: pandas.read_parquet(source).to_parquet(target),
    "polars": lambda source, target: polars.read_parquet(source).write_parquet(target),
    "duckdb": lambda source, target: duckdb.sql(f"COPY (SELECT * FROM '{source}') TO '{target}' (FORMAT parquet)"),
}


def write(out: Path, stored: str) -> Path:
    """Writes the embeddings above in parts of three."""
    work = Work(out, "parquet", 3)
    for number in work.begin(PHOTOS, {**SETTINGS, "stored": stored}):
        rows = slice(*work.ranges[number : number + 2])
        work.write(number, Part(PHOTOS[rows], np.zeros(len(PHOTOS[rows]), bool), VECTORS[rows]), [])
    work.finish()
    return out


@pytest.mark.parametrize("stored", ["float32", "float16"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", ["file", "folder"])
def test_other_programs_read_the_numbers_as_they_are(form: str, reader: str, stored: str, tmp_path: Path) -> None:
    out = write(tmp_path / ("gallery.parquet" if form == "file" else "gallery"), stored)
    path = str(out if form == "file" or reader == "pandas" else out / "*.parquet")
    names, identities, vectors = zip(*READERS[reader](path), strict=True)
    read = np.stack([np.asarray(vector) for vector in vectors])
    np.testing.assert_array_equal(read.astype(np.float32), VECTORS.astype(stored).astype(np.float32))
    assert list(names) == [photo.image_id for photo in PHOTOS]
    assert [None if pandas.isna(value) else value for value in identities] == IDENTITIES


@pytest.mark.parametrize("stored", ["float32", "float16"])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_other_programs_wrote_again_is_the_same_gallery(writer: str, stored: str, tmp_path: Path) -> None:
    source, target = write(tmp_path / "gallery.parquet", stored), tmp_path / "again.parquet"
    WRITERS[writer](str(source), str(target))
    gallery = EmbeddingSet(target, streams=("face", "body"))
    np.testing.assert_array_equal(gallery.all(), VECTORS.astype(stored).astype(np.float32))
    assert gallery.columns()["identity"] == IDENTITIES
    assert pq.read_schema(target).names[:2] == ["image_id", "image"]
