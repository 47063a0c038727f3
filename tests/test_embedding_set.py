"""Embeddings come back from every kind of file as they went in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deskpro_jax.embedding.embedding_set import EmbeddingSet, settings_of
from deskpro_jax.embedding.files import Part
from deskpro_jax.embedding.job import Work
from deskpro_jax.embedding.photo_list import Listed
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation.similarity import Similarity, StreamParts, equal_parts
from deskpro_jax.storage import parquet

DIMENSION = 28
SETTINGS = {"model_checksum": "abc", "streams": ["face", "body"], "parts": 14, "dimension": DIMENSION}
VECTORS = np.random.default_rng(0).standard_normal((7, DIMENSION)).astype(np.float32)
HAS_FACE = np.array([1, 1, 0, 1, 0, 1, 1], bool)
PHOTOS = [Listed(f"a/{i}", f"photos/a/{i}.jpg", "f" if HAS_FACE[i] else None, i % 3, f"c{i}") for i in range(7)]
COLUMNS = {
    "image_id": [photo.image_id for photo in PHOTOS],
    "image": [photo.path for photo in PHOTOS],
    "identity": [0, 1, 2, 0, 1, 2, 0],
    "camera": [f"c{i}" for i in range(7)],
    "clothes": [None] * 7,
    "has_face": HAS_FACE.tolist(),
    "image_sha256": [None] * 7,
}


def write(out: Path, form: str, stored: str = "float32", **more: Any) -> Path:
    """Writes the embeddings above in parts of three."""
    work = Work(out, form, 3)
    for number in work.begin(PHOTOS, {**SETTINGS, "stored": stored, **more}):
        rows = slice(*work.ranges[number : number + 2])
        work.write(number, Part(PHOTOS[rows], HAS_FACE[rows], VECTORS[rows]), [])
    work.finish()
    return out


@pytest.mark.parametrize("stored", ["float32", "float16"])
@pytest.mark.parametrize("name", ["e.parquet", "e.npy", "folder:parquet", "folder:npy"])
def test_embeddings_and_columns_come_back(tmp_path: Path, name: str, stored: str) -> None:
    name, _, form = name.partition(":")
    found = EmbeddingSet(write(tmp_path / name, form or name.split(".")[1], stored))
    assert (found.similarity.parts, found.dimension, found.streams) == (14, DIMENSION, ("face", "body"))
    assert found.settings["model_checksum"] == "abc"
    assert found.columns() == COLUMNS
    np.testing.assert_array_equal(found.all(), VECTORS.astype(stored).astype(np.float32))
    assert {block.dtype for block in found.blocks()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["e.parquet", "e.npy", "folder:parquet", "folder:npy"])
def test_tracklets_have_a_column_where_photos_have_them(tmp_path: Path, name: str) -> None:
    name, _, form = name.partition(":")
    tracklets = [4, 4, None, "x7", 4, None, 0]
    photos = [photo._replace(tracklet=value) for photo, value in zip(PHOTOS, tracklets, strict=True)]
    work = Work(tmp_path / name, form or name.split(".")[1], 3)
    for number in work.begin(photos, {**SETTINGS, "stored": "float32"}):
        rows = slice(*work.ranges[number : number + 2])
        work.write(number, Part(photos[rows], HAS_FACE[rows], VECTORS[rows]), [])
    work.finish()
    found = EmbeddingSet(tmp_path / name)
    assert found.columns() == COLUMNS | {"tracklet": tracklets}
    assert list(found.columns()) == [*list(COLUMNS)[:5], "tracklet", *list(COLUMNS)[5:]]


def test_parquet_has_fixed_size_lists_and_says_what_it_is(tmp_path: Path) -> None:
    table = pq.read_table(write(tmp_path / "e.parquet", "parquet", "float16"))
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), DIMENSION)
    assert table.schema.field("identity").type == pa.int64()
    assert table.schema.field("camera").type == pa.string()
    assert set(table["model_checksum"].to_pylist()) == {"abc"}
    assert json.loads(table.schema.metadata[b"deskpro_jax"])["streams"] == ["face", "body"]
    folder = pq.read_table(write(tmp_path / "folder", "parquet", "float16"))  # readers take a folder as it is
    assert folder.drop_columns("embedding").equals(table.drop_columns("embedding"))


def test_npy_has_a_json_line_for_each_row(tmp_path: Path) -> None:
    write(tmp_path / "e.npy", "npy")
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), VECTORS)
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert [row["image_id"] for row in rows] == COLUMNS["image_id"]
    assert rows[2] == {
        "image_id": "a/2",
        "image": "photos/a/2.jpg",
        "identity": 2,
        "camera": "c2",
        "clothes": None,
        "has_face": False,
        "image_sha256": None,
        "model_checksum": "abc",
    }


def test_a_table_that_another_program_wrote_needs_its_streams(tmp_path: Path) -> None:
    table = pq.read_table(write(tmp_path / "e.parquet", "parquet"))
    lists = table["embedding"].to_pylist()
    other = table.replace_schema_metadata(None).set_column(
        table.schema.get_field_index("embedding"), "embedding", pa.array(lists, pa.list_(pa.float64()))
    )
    pq.write_table(other.slice(2), tmp_path / "o.parquet")
    with pytest.raises(InputError, match="give --streams"):
        EmbeddingSet(tmp_path / "o.parquet")
    found = EmbeddingSet(tmp_path / "o.parquet", streams=("face", "body"))
    assert (found.similarity.parts, found.dimension, found.settings["model_checksum"]) == (14, DIMENSION, "abc")
    np.testing.assert_array_equal(found.all(), VECTORS[2:])
    assert found.columns()["image_id"] == COLUMNS["image_id"][2:]


@pytest.mark.parametrize("values", [[0.0, 1.0, None], ["0", " 1", "nan"], ["0.0", "1.0", ""]])
def test_labels_that_another_program_wrote_again_are_the_same_labels(tmp_path: Path, values: list[Any]) -> None:
    table = pq.read_table(write(tmp_path / "e.parquet", "parquet")).slice(0, 3)
    identity = table.column_names.index("identity")
    pq.write_table(table.set_column(identity, "identity", pa.array(values)), tmp_path / "o.parquet")
    assert EmbeddingSet(tmp_path / "o.parquet").columns()["identity"] == [0, 1, None]

    pq.write_table(table.set_column(identity, "person_id", pa.array(values)), tmp_path / "o.parquet")
    with pytest.raises(InputError, match=r"'person_id' \(did you mean identity\?\)"):
        EmbeddingSet(tmp_path / "o.parquet").columns()


def test_what_holds_no_finished_embeddings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no embeddings at .*deskpro_jax\.embed"):
        EmbeddingSet(tmp_path / "absent.parquet")
    work = Work(tmp_path / "begun", "parquet", 3)
    work.begin(PHOTOS, SETTINGS | {"stored": "float32"})
    with pytest.raises(InputError, match="not finished"):
        EmbeddingSet(tmp_path / "begun")
    pq.write_table(pa.table({"path": ["a.jpg"]}), tmp_path / "list.parquet")
    with pytest.raises(InputError, match="columns path; expected embeddings"):
        EmbeddingSet(tmp_path / "list.parquet")
    write(tmp_path / "e.npy", "npy")
    (tmp_path / "e.json").rename(tmp_path / "away.json")
    with pytest.raises(MissingInputError, match=r"no e\.json beside it"):
        EmbeddingSet(tmp_path / "e.npy")


def test_damage_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "e.parquet", "parquet")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"e\.parquet is not a complete Parquet file"):
        EmbeddingSet(path)
    folder = write(tmp_path / "folder", "npy")
    part = sorted(folder.glob("*.npy"))[1]
    np.save(part, np.full((3, DIMENSION), np.nan, np.float32))
    with pytest.raises(InputError, match=rf"{part.name}.* not finite"):
        EmbeddingSet(folder).all()
    part.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{part.name} is not a complete .npy file"):
        EmbeddingSet(folder).all()
    part.unlink()
    with pytest.raises(MissingInputError, match=f"lacks {part.name}"):
        EmbeddingSet(folder)


def test_without_pyarrow_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "e.parquet", "parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'deskpro_jax\[embed\]'"):
        parquet.require_pyarrow()
    with pytest.raises(InputError, match="a Parquet file needs pyarrow"):
        EmbeddingSet(path)
    assert len(EmbeddingSet(write(tmp_path / "e.npy", "npy")).all()) == 7


UNEQUAL = Similarity((StreamParts("face", 1, 2, True), StreamParts("body", 3, 4, False, (1.0, 0.5, 0.25))))


def test_streams_of_other_parts_and_weights_are_read_as_they_were_written(tmp_path: Path) -> None:
    settings = settings_of(UNEQUAL)
    vectors = np.random.default_rng(0).standard_normal((len(PHOTOS), UNEQUAL.total_dim)).astype(np.float32)
    work = Work(tmp_path / "e.parquet", "parquet", 10)
    for number in work.begin(PHOTOS, SETTINGS | settings | {"dimension": UNEQUAL.total_dim, "stored": "float32"}):
        work.write(number, Part(PHOTOS, HAS_FACE, vectors), [])
    work.finish()
    opened = EmbeddingSet(tmp_path / "e.parquet")
    assert opened.similarity == UNEQUAL
    np.testing.assert_array_equal(opened.all(), vectors)
    table = pq.read_table(tmp_path / "e.parquet").replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "o.parquet")
    foreign = EmbeddingSet(tmp_path / "o.parquet", streams=("face:1x2", "body:3x4"))
    assert foreign.similarity == dataclasses.replace(
        UNEQUAL, streams=(UNEQUAL.streams[0], dataclasses.replace(UNEQUAL.streams[1], weights=()))
    )
    with pytest.raises(InputError, match="is of embeddings of length 10; these have 14"):
        EmbeddingSet(tmp_path / "o.parquet", streams=("face:1x2", "body:2x4"))
    with pytest.raises(InputError, match=r"--streams has 'face'; expected NAME:PARTSxLENGTH for each, as body:6x2048"):
        EmbeddingSet(tmp_path / "o.parquet", streams=("face", "body:3x4"))


def test_settings_of_equal_parts_are_those_that_earlier_versions_read() -> None:
    assert settings_of(equal_parts(28, {"face": 7, "body": 7}, ("face",), "zeros")) == {
        "streams": ["face", "body"],
        "parts": 14,
    }
    assert settings_of(equal_parts(8, {"body": 1})) == {"streams": ["body"], "parts": 1}
