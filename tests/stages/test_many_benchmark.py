"""Many photos are embedded while their memory is watched, and a run that is killed on the way goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import many
from benchmarks.many import Sample


def test_photos_are_the_same_whatever_the_workers_and_differ_from_each_other(tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        many.write_photos(folder, 30, workers)
        found.append([path.read_bytes() for path in sorted(folder.rglob("*.jpg"))])
    assert found[0] == found[1]
    assert len(set(found[0])) == 30
    with Image.open(next((tmp_path / "1").rglob("*.jpg"))) as photo:
        assert photo.size == (128, 256)


def test_growth_is_that_of_a_line_without_the_start() -> None:
    warming = [Sample(0.0, 0, 10), Sample(1.0, 50, 900)]
    flat = [Sample(float(i), 100 * i, 1000) for i in range(2, 11)]
    assert many.growth([*warming, *flat], 1000) == pytest.approx(0, abs=1e-6)
    rising = [Sample(float(i), 100 * i, 1000 + 2 * 100 * i) for i in range(2, 11)]
    assert many.growth([*warming, *rising], 1000) == pytest.approx(2 * 900)
    assert many.growth(warming, 1000) == 0
    again = [Sample(0.0, 500, 10), Sample(1.0, 500, 900), *(Sample(float(i), 100 * i, 1000) for i in range(6, 11))]
    assert many.growth(again, 1000) == pytest.approx(0, abs=1e-6)  # of a run that went on, its start does not count


@pytest.mark.slow
def test_killed_it_goes_on_and_every_photo_has_its_embedding(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="of the extra bench")
    monkeypatch.setattr(many, "EVERY", 0.02)
    flags = ["--checkpoint", str(untrained), "--images", "512", "--part", "32", "--kills", "1"]
    out, plot = tmp_path / "many.json", tmp_path / "many.png"
    assert many.main([*flags, "--out", str(out), "--plot", str(plot), "--folder", str(tmp_path)]) == 0
    record = json.loads(out.read_text())
    assert record["rows"] == record["photos"] == 512
    assert "rows 512" in capsys.readouterr().out
    assert max(sample[2] for sample in record["samples"]) > 2**20
    with Image.open(plot) as picture:
        assert np.asarray(picture).std() > 10


def test_wrong_flags_end_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert many.main(["--checkpoint", str(tmp_path), "--images", "0"]) == 2
    assert "--images" in capsys.readouterr().err
    assert many.main(["--checkpoint", str(tmp_path), "--images", "1", "--plot", "x.doc"]) == 2
    assert ".png" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
