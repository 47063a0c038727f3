"""The benchmark of approximate search measures what it says, on galleries of people whose photos are alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import recall
from deskpro_jax.evaluation.ranking import similarity
from deskpro_jax.search.exact import Neighbours


def test_made_up_embeddings_are_like_real_ones() -> None:
    blocks = list(recall.People(10).photos(120, 0))
    vectors, identity, has_face = (np.concatenate([block[i] for block in blocks]) for i in range(3))
    lengths = np.linalg.norm(vectors.reshape(120, recall.PARTS, -1), axis=2)
    np.testing.assert_allclose(lengths[:, 7:], 1, atol=1e-5)
    np.testing.assert_allclose(lengths[:, :7], np.repeat(has_face[:, None], 7, 1), atol=1e-5)
    assert 0 < has_face.mean() < 1
    near = similarity(vectors, vectors, parts=recall.PARTS)
    same = identity[:, None] == identity
    other = ~np.eye(120, dtype=bool)
    assert near[same & other].mean() > near[~same].mean() + 0.2
    (again,) = recall.People(10).photos(120, 0)
    np.testing.assert_array_equal(again[0], vectors)
    assert not np.array_equal(next(recall.People(10).photos(120, 1))[0], vectors)


def test_recall_is_the_share_that_was_found() -> None:
    rows = np.array([[0, 1, 2], [3, 4, 5]])
    exact = Neighbours(rows, np.zeros((2, 3)), np.zeros((2, 3)))
    found = exact._replace(rows=np.array([[0, 2, 9], [5, -1, -1]]))
    assert recall.recall(found, exact, 1) == 0.5
    assert recall.recall(found, exact, 3) == pytest.approx(0.5)


def test_each_method_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recall, "WIDTH", 32)
    out = tmp_path / "recall.json"
    assert recall.main(["--sizes", "300", "--queries", "5", "--folder", str(tmp_path), "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["method"] for row in rows] == ["exact", "ivf", "hnsw"]
    assert rows[0]["recall@20"] == 1
    assert all(row["recall@10"] > 0.9 for row in rows)
    assert capsys.readouterr().out.count("| 300 |") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["recall.json"]
    assert recall.main(["--sizes", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: --sizes 0")
