"""The search command: right matches in every form, the same person or not, and clear ends."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runs
from deskpro_jax.cli import search
from deskpro_jax.evaluation.ranking import similarity
from gallery import People, people, write

GALLERY, QUERY = people(300, 20, 0), people(6, 20, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    write(GALLERY, folder / "gallery.parquet")
    write(QUERY, folder / "query.npy")
    return folder


def flags(folder: Path, *more: str) -> list[str]:
    return ["--gallery", str(folder / "gallery.parquet"), "--query", str(folder / "query.npy"), *more]


def results(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> list[dict[str, Any]]:
    assert search.main([*arguments, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_nearest_images_come_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, flags(folder, "-k", "5"))
    near = similarity(QUERY.vectors, GALLERY.vectors, parts=14)
    assert [query["query"] for query in found] == [f"{i:04d}" for i in range(6)]
    for i, query in enumerate(found):
        assert query["shows"] == ("face and body" if QUERY.has_face[i] else "body")
        assert [match["rank"] for match in query["matches"]] == [1, 2, 3, 4, 5]
        rows = [int(match["image_id"]) for match in query["matches"]]
        np.testing.assert_allclose([m["similarity"] for m in query["matches"]], near[i, rows], atol=1e-6)
        assert near[i, rows[-1]] == pytest.approx(np.sort(near[i])[-5])
        for row, match in zip(rows, query["matches"], strict=True):
            both = QUERY.has_face[i] and GALLERY.has_face[row]
            assert match["compared"] == ("face and body" if both else "body")
            assert (match["identity"], match["image"]) == (GALLERY.identity[row], f"photos/{row:04d}.jpg")
            assert match["same_person"] is None
    assert {True, False} == set(QUERY.has_face)


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_an_approximate_search_keeps_its_index(
    folder: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = results(capsys, flags(folder, "-k", "3"))
    arguments = flags(folder, "-k", "3", "--method", method, "--index", str(tmp_path / "index"), "--effort", "300")
    assert search.main([*arguments, "--format", "json"]) == 0
    output = capsys.readouterr()
    assert "building the" in output.err
    first = json.loads(output.out)
    assert search.main([*arguments, "--format", "json"]) == 0
    output = capsys.readouterr()
    assert "building" not in output.err
    assert json.loads(output.out) == first
    names = [[match["image_id"] for match in query["matches"]] for query in first]
    assert names == [[match["image_id"] for match in query["matches"]] for query in exact]


def test_thresholds_say_who_is_the_same_person(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(folder, "-k", "300", "--thresholds", str(tmp_path / "t.json"))
    found = results(capsys, [*arguments, "--calibrate", str(folder / "gallery.parquet")])
    answers = [
        (match["same_person"], match["identity"] == QUERY.identity[i])
        for i, query in enumerate(found)
        for match in query["matches"]
    ]
    assert np.mean([answer for answer, same in answers if same]) > 0.95
    assert 0 < np.mean([answer for answer, same in answers if not same]) < 0.03  # other people than it was set by
    assert results(capsys, arguments) == found
    limits = json.loads((tmp_path / "t.json").read_text())["by_streams"]
    assert set(limits) == {"face and body", "body"}
    for query in found:
        for match in query["matches"]:
            assert match["same_person"] == (match["similarity"] >= limits[match["compared"]]["similarity"])


def test_tables_and_csv_hold_the_same(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = results(capsys, flags(folder, "-k", "2"))
    assert search.main(flags(folder, "-k", "2", "--out", str(tmp_path / "found.csv"))) == 0
    with (tmp_path / "found.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["query"], row["image_id"]) for row in rows] == [
        (query["query"], match["image_id"]) for query in expected for match in query["matches"]
    ]
    assert float(rows[0]["similarity"]) == expected[0]["matches"][0]["similarity"]
    assert {row["same_person"] for row in rows} == {""}
    assert search.main(flags(folder, "-k", "2", "--out", str(tmp_path / "found.json"))) == 0
    assert json.loads((tmp_path / "found.json").read_text()) == expected
    assert search.main(flags(folder, "-k", "2")) == 0
    table = capsys.readouterr().out
    assert all(match["image_id"] in table for query in expected for match in query["matches"])
    assert "face and body" in table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "found.json"]


def test_a_search_among_embeddings_loads_no_jax(folder: Path) -> None:
    code = "import sys; from deskpro_jax.cli.search import main; print(main(sys.argv[1:]), 'jax' in sys.modules)"
    arguments = [sys.executable, "-c", code, *flags(folder, "-k", "1", "--format", "csv")]
    assert subprocess.check_output(arguments, text=True, cwd=runs.ROOT).splitlines()[-1] == "0 False"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gallery", "absent"], "no embeddings at absent"),
        (["--query", "photo.jpg"], "give --checkpoint"),
        (["--query", "other.npy"], "do not come from the same networks"),
        (["--thresholds", "absent.json"], "no file at absent.json"),
        (["--calibrate", "other.npy"], "do not come from the same networks"),
        (["--effort", "3"], "go with --method ivf or hnsw"),
        (["--out", "absent/found.csv"], "no folder"),
    ],
)
def test_bad_flags_end_with_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    if not (folder / "other.npy").exists():
        write(QUERY, folder / "other.npy", checksum="other")
    monkeypatch.chdir(folder)
    assert search.main(flags(folder, *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_other_preprocessing_is_mentioned(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(QUERY, tmp_path / "plain.npy")
    record = json.loads((tmp_path / "plain.json").read_text())
    record["settings"]["flip"] = False
    (tmp_path / "plain.json").write_text(json.dumps(record))
    assert search.main([*flags(folder), "--query", str(path), "-k", "1"]) == 0
    assert "was embedded with flip False, the gallery with True" in capsys.readouterr().err


def test_an_empty_answer_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = People(np.zeros_like(QUERY.vectors[:1]), QUERY.identity[:1], np.array([False]))
    write(GALLERY, tmp_path / "gallery.parquet")
    write(nobody, tmp_path / "query.npy")
    assert search.main(flags(tmp_path)) == 0
    assert "(shows nothing): nothing in the gallery can be compared with it" in capsys.readouterr().out


def test_the_rule_for_missing_faces_goes_with_the_embeddings(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(GALLERY, tmp_path / "gallery.parquet", missing_face="zeros")
    write(QUERY, tmp_path / "query.npy", missing_face="zeros")
    assert search.main([*flags(tmp_path), "-k", "300", "--format", "json"]) == 0
    output = capsys.readouterr()
    assert "a photo without a face reaches half the similarity at most" in output.err
    near = similarity(QUERY.vectors, GALLERY.vectors, parts=14, missing_face="zeros")
    for i, query in enumerate(json.loads(output.out)):
        values = [match["similarity"] for match in query["matches"]]
        np.testing.assert_allclose(values, np.sort(near[i])[::-1], atol=1e-6)
        if not QUERY.has_face[i]:
            assert values[0] <= 0.5 + 1e-6
    limits = str(tmp_path / "t.json")
    calibrating = ["--calibrate", str(folder / "gallery.parquet"), "--thresholds", limits]
    assert search.main(flags(tmp_path, *calibrating)) == 2
    assert "compared by 'body' there, by 'zeros'" in capsys.readouterr().err
    assert search.main([*flags(tmp_path), "--query", str(folder / "query.npy"), "-k", "1"]) == 0
    assert (
        "was embedded with missing_face" not in capsys.readouterr().err
    )  # embeddings that do not say take the gallery's rule
