"""Embeddings with tracklets are searched by tracklet: means, labels of the first photo, photos of no tracklet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deskpro_jax.cli import search
from deskpro_jax.embedding.files import Part
from deskpro_jax.embedding.job import Work
from deskpro_jax.embedding.photo_list import Listed
from deskpro_jax.errors import InputError
from deskpro_jax.search.tracklet_set import TrackletSet

SETTINGS = {"model_checksum": "abc", "streams": ["face", "body"], "parts": 2, "dimension": 4, "stored": "float32"}
Row = tuple[str, int, str | None, float | None, float]  # name, identity, tracklet, angles of face and body


def at(degrees: float | None) -> list[float]:
    return [0.0, 0.0] if degrees is None else [float(np.cos(np.deg2rad(degrees))), float(np.sin(np.deg2rad(degrees)))]


def write(out: Path, *rows: Row) -> Path:
    photos = [Listed(name, f"{name}.jpg", None, identity, tracklet=tracklet) for name, identity, tracklet, *_ in rows]
    has_face = np.array([face is not None for *_, face, _ in rows])
    vectors = np.array([[*at(face), *at(body)] for *_, face, body in rows], np.float32)
    work = Work(out, "parquet", 100)
    for number in work.begin(photos, SETTINGS):
        work.write(number, Part(photos, has_face, vectors), [])
    work.finish()
    return out


GALLERY: tuple[Row, ...] = (
    ("a1", 1, "a", None, 0),
    ("b1", 2, "b", None, 50),
    ("a2", 1, "a", 10, 80),
    ("alone", 3, None, None, 30),
    ("b2", 2, "b", None, 70),
)


def test_a_row_is_the_mean_of_a_tracklets_photos(tmp_path: Path) -> None:
    tracklets = TrackletSet(write(tmp_path / "g.parquet", *GALLERY))
    np.testing.assert_allclose(tracklets.all(), [[*at(10), *at(40)], [0, 0, *at(60)], [0, 0, *at(30)]], atol=1e-6)
    columns = tracklets.columns()
    assert columns["image_id"] == ["a1", "b1", "alone"]
    assert columns["identity"] == [1, 2, 3]
    assert columns["has_face"] == [True, False, False]
    (block,) = tracklets.blocks()
    assert block.dtype == np.float32


def test_search_by_tracklet_ranks_tracklets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = str(write(tmp_path / "g.parquet", *GALLERY))
    query = str(write(tmp_path / "q.parquet", ("q1", 2, "q", None, 35), ("q2", 2, "q", None, 75)))
    flags = ["--gallery", gallery, "--query", query, "--format", "json"]
    assert search.main([*flags, "--by-tracklet"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["query"] == "q1"
    assert [match["image_id"] for match in found["matches"]] == ["b1", "a1", "alone"]  # 55 is next to 60, 40 and 30
    assert search.main(flags) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2  # photos, as ever
    assert search.main([*flags, "--by-tracklet", "--method", "hnsw"]) == 2
    assert "--by-tracklet searches exactly" in capsys.readouterr().err


def test_embeddings_without_tracklets_or_with_mixed_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"g\.parquet has no tracklets: embed a table of photos with a column trackl"):
        TrackletSet(write(tmp_path / "g.parquet", ("a", 1, None, None, 0)))
    with pytest.raises(InputError, match=r"tracklet 't' has photos of the identities 1 and 2; expected one"):
        TrackletSet(write(tmp_path / "m.parquet", ("a", 1, "t", None, 0), ("b", 2, "t", None, 5)))
