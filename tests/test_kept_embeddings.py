"""The embeddings of the last evaluation stay in the workdir, and are read only for what they were computed from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import runs
import small_models
from deskpro_jax.cli import report
from deskpro_jax.errors import RunError
from deskpro_jax.evaluation import kept_embeddings
from deskpro_jax.evaluation.kept_embeddings import Origin, keep, origin_of, read
from deskpro_jax.models.checksum import checksum_of
from deskpro_jax.report import contents, sections
from gallery import DIMENSION, SIMILARITY, people

SIZES = {"body_size": (64, 32), "face_size": (32, 32)}


class Split(SimpleNamespace):
    """What is looked at of a split."""

    def __len__(self) -> int:
        return int(self.count)


def origin(**changes: Any) -> Origin:
    """The origin of embeddings of 5 queries and 9 gallery images."""
    sums = {"query": "q", "gallery": "g"}
    splits = [Split(count=count, metadata={"checksums": sums}) for count in (5, 9)]
    made = {"images": {"body", "face"}, "sizes": SIZES, "flip": True, "dtype": "float32"} | changes
    return origin_of("celeb", splits, [{"params": {"stem": np.arange(3.0)}}], **made)  # type: ignore[arg-type]


def write(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = people(5, 3, 0).vectors, people(9, 3, 1).vectors
    keep(folder, arrays, origin(), SIMILARITY, {"student": 7})
    return arrays


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_not_kept(tmp_path: Path, value: float) -> None:
    query, gallery = people(5, 3, 0).vectors, people(9, 3, 1).vectors
    gallery[3, 2] = value
    with pytest.raises(RunError, match=r"NaN or infinity for 1 gallery images, the first of them number 3"):
        keep(tmp_path, (query, gallery), origin(), SIMILARITY, {"student": 7})
    assert not list(tmp_path.iterdir())


def test_what_was_kept_is_read_again_to_the_last_bit(tmp_path: Path) -> None:
    for written, kept in zip(write(tmp_path), read(tmp_path, origin()) or (), strict=True):
        np.testing.assert_array_equal(written, kept)
    folder = tmp_path / "embeddings"
    assert sorted(path.name for path in folder.iterdir()) == ["embeddings.json", "gallery.npy", "query.npy"]
    record = json.loads((folder / "embeddings.json").read_text())
    assert (record["dataset"], record["steps"], record["missing_face"]) == ("celeb", {"student": 7}, "body")
    assert record["splits"] == {"query": {"images": 5, "checksum": "q"}, "gallery": {"images": 9, "checksum": "g"}}
    assert [(one["name"], one["count"], one["dim"]) for one in record["streams"]] == [("face", 7, 16), ("body", 7, 16)]


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(origin(), dataset="prcc"),
        dataclasses.replace(origin(), networks="0"),
        dataclasses.replace(origin(), splits=origin().splits | {"query": {"images": 5, "checksum": "p"}}),
        origin(flip=False),
        origin(dtype="bfloat16"),
        origin(images={"body"}),
        origin(sizes=SIZES | {"body_size": (128, 64)}),
    ],
)
def test_those_of_another_origin_are_not_read(tmp_path: Path, other: Origin) -> None:
    write(tmp_path)
    assert read(tmp_path, other) is None


def test_damaged_and_absent_files_are_not_read(tmp_path: Path) -> None:
    assert read(tmp_path, origin()) is None
    for name, content in (
        ("query.npy", b""),
        ("query.npy", None),
        ("embeddings.json", b"{"),
        ("embeddings.json", b"{}"),
    ):
        write(tmp_path)
        path = tmp_path / "embeddings" / name
        path.unlink() if content is None else path.write_bytes(content)
        assert read(tmp_path, origin()) is None
    write(tmp_path)
    np.save(tmp_path / "embeddings" / "gallery.npy", np.zeros((8, DIMENSION), np.float32))
    assert read(tmp_path, origin()) is None


def test_a_write_that_fails_leaves_no_record_of_other_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)

    def full(path: Path, array: np.ndarray) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(kept_embeddings, "_save", full)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path)
    assert read(tmp_path, origin()) is None


def test_classifiers_are_not_in_the_checksum() -> None:
    network = {"params": {"stem": {"kernel": np.ones(3)}, "classifier": {"kernel": np.ones((3, 8))}}}
    other = {"params": {"stem": {"kernel": np.ones(3)}, "classifier": {"kernel": np.zeros((3, 2))}}}
    assert checksum_of([network]) == checksum_of([other])
    other["params"]["stem"]["kernel"] = np.zeros(3)
    assert checksum_of([network]) != checksum_of([other])


def test_the_report_reads_what_the_evaluation_kept(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = runs.config(tiny_data, eval__flip=False)
    folder = small_models.write_workdir(
        tmp_path / "run", tiny_data, eval__flip=False, model__backbone=config.model.backbone
    )
    shown = []
    monkeypatch.setattr(contents, "_attention", lambda *args: sections.Shown(missing="not in this test"))
    monkeypatch.setattr(contents, "embed", lambda opened: shown.append("anew") or (_ for _ in ()).throw(OSError()))

    def page(*arguments: str) -> str:
        shown.clear()
        assert report.main([str(folder), "--images=0", *arguments]) == 0
        return (folder / "report.html").read_text()

    runs.run(runs.config(tiny_data, eval__flip=False, eval__keep_embeddings=False), folder, "evaluate")
    assert not (folder / "embeddings").exists()
    page()
    assert shown == ["anew"]
    (result, *_) = runs.run(config, folder, "evaluate")
    text = page()
    assert not shown
    assert "those of the last evaluation" in text
    assert f"mAP {100 * result.result.figures['mAP']:.1f} %" in page("--stream", result.stream)
    assert "The results on file have an mAP" not in text


def test_another_distance_and_average_precision_stand_with_every_figure(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {"eval__flip": False, "eval__distance": "euclidean", "eval__average_precision": "trapezoid"}
    config = runs.config(tiny_data, eval__baselines=True, **fields)
    folder = small_models.write_workdir(tmp_path / "run", tiny_data, model__backbone=config.model.backbone, **fields)
    monkeypatch.setattr(contents, "_attention", lambda *args: sections.Shown(missing="not in this test"))
    monkeypatch.setattr(contents, "embed", lambda opened: (_ for _ in ()).throw(OSError()))
    runs.run(config, folder, "evaluate")
    printed, markdown = capsys.readouterr().out, (folder / "results.md").read_text()
    for output in (printed, markdown):
        assert "mAP (trapezoid)" in output
        assert "squared Euclidean distance of features as they are; average precision by the trapezoid rule" in output
    results = json.loads((folder / "results.json").read_text())
    assert {entry["average_precision"] for entry in results["results"]} == {"trapezoid"}
    assert {row["average_precision"] for row in results["baselines"]} == {"trapezoid"}
    query = np.load(folder / "embeddings" / "query.npy")
    assert abs(np.linalg.norm(query[:, -4:], axis=1) - 1).max() > 1e-3  # not scaled to unit length
    assert report.main([str(folder), "--images=0"]) == 0
    page = (folder / "report.html").read_text()
    assert page.count("mAP (trapezoid)") >= 3  # the facts, the table's head and its cells
    assert "those of the last evaluation" in page
    assert "The results on file have an mAP" not in page
    assert report.main([str(folder), "--images=0", "--stream=gait"]) == 2
