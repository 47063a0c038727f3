"""Apache Beam builds the very bytes that one process builds, with its runner of several local processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from author_trees import write, write_parts
from data_prep import build
from deskpro_jax.data import records
from deskpro_jax.data.build import shards


def test_beam_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apache_beam", reason="the extra 'beam' is not installed")
    monkeypatch.setattr(shards, "IMAGES", 3)  # of 7, 2 and 5 images: 3, 1 and 2 shards
    write_parts(write("celeb", tmp_path / "raw"), tmp_path / "parts")
    arguments = ["--dataset", "celeb", "--raw", str(tmp_path / "raw"), "--parts", str(tmp_path / "parts")]
    arguments.append("--allow-different-size")
    assert build.main([*arguments, "--out", str(tmp_path / "one"), "--workers", "0"]) == 0
    assert build.main([*arguments, "--out", str(tmp_path / "beam"), "--workers", "2", "--runner", "beam"]) == 0
    one, beam = (records.dataset_path("celeb", tmp_path / out) for out in ("one", "beam"))
    files = {file.name: file.read_bytes() for file in one.iterdir()}
    assert sum("array_record" in name for name in files) == 6
    assert {file.name: file.read_bytes() for file in beam.iterdir()} == files


def test_beam_reports_bad_files_as_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("apache_beam", reason="the extra 'beam' is not installed")
    write("folder", tmp_path / "raw")
    (tmp_path / "raw/anna/door.jpg").write_bytes(b"")
    (tmp_path / "raw/test/g1.jpg").write_bytes(b"x")
    arguments = ["--dataset", "folder", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    errors = []
    for runner in ("local", "beam"):
        assert build.main([*arguments, "--workers", "1", "--runner", runner]) == 2
        errors.append([line for line in capsys.readouterr().err.splitlines() if str(tmp_path) in line])
    assert len(errors[0]) == 2
    assert errors[0] == errors[1]


def test_without_beam_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    write("folder", tmp_path / "raw")
    arguments = ["--dataset", "folder", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert build.main([*arguments, "--runner", "beam"]) == 2
    assert "--runner beam needs apache_beam" in capsys.readouterr().err
