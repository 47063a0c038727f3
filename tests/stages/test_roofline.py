"""The bounds of larger machines are the arithmetic that the page says they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import roofline

MACHINE = roofline.Machine("toy", 4, 1e12, 1e11, 1e9, 1e10, 10, "nobody")
STEP = roofline.Measured(2e9, 1e8, 1e7, 1_000_000, 500_000, 100.0)


def test_a_step_takes_as_long_as_products_or_traffic_and_then_the_all_reduce() -> None:
    found = roofline.bound(MACHINE, STEP, 10, 0.5, width=4)
    assert found.products == pytest.approx(10 * 2e9 / 0.5e12)
    assert found.traffic == pytest.approx(10 * 1e8 / 0.5e11)
    assert found.reduce == pytest.approx(2 * 3 / 4 * 4e6 / 0.5e10)
    assert found.step == pytest.approx(max(found.products, found.traffic) + found.reduce)
    assert found.images_per_second == pytest.approx(4 * 10 / found.step)
    assert found.input == 1000
    assert found.limit == "products"  # 971 images/s
    assert found.largest == int((1e9 - 16e6) / 1e7)


def test_narrow_activations_halve_traffic_and_memory() -> None:
    wide, narrow = (roofline.bound(MACHINE, STEP, 10, 1.0, width=width) for width in (4, 2))
    assert narrow.traffic == pytest.approx(wide.traffic / 2)
    assert narrow.largest == pytest.approx(2 * wide.largest, abs=1)
    assert (narrow.products, narrow.reduce) == (wide.products, wide.reduce)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"loader": 1e9}, "products"),
        ({"loader": 1e9, "traffic": 1e10}, "memory traffic"),
        ({"loader": 1e9, "parameters": 10**9}, "all-reduce"),
        ({"loader": 0.1}, "input"),
    ],
)
def test_the_limit_is_what_takes_longest(changes: dict[str, float], limit: str) -> None:
    measured = roofline.Measured(**{**STEP.__dict__, **changes})
    assert roofline.bound(MACHINE, measured, 10, 1.0, width=4).limit == limit


def test_an_image_is_its_pixels_its_mask_and_both_faces() -> None:
    assert roofline.image_bytes() == 384 * 128 * (3 + 1) + 2 * 224 * 224 * 3


def test_the_command_prints_bounds_and_says_that_they_are_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {"batch": 8, "gflops": 80, "bytes_accessed": 8e9, "temporary_bytes": 8e8, "parameters": 5_000_000}
    (tmp_path / "step.json").write_text(json.dumps({"results": [result]}))
    flags = [f"--step={tmp_path / 'step.json'}", "--loader=500", "--images=32", f"--out={tmp_path / 'bounds.json'}"]
    assert roofline.main(flags) == 0
    printed = capsys.readouterr().out
    assert "computed, not measured" in printed
    assert "10.0 GFLOP" in printed
    assert [b["machine"] for b in json.loads((tmp_path / "bounds.json").read_text())["bounds"]] == [
        machine.name for machine in roofline.MACHINES
    ]
    (tmp_path / "step.json").write_text("{}")
    assert roofline.main(flags) == 2
    assert "expected what benchmarks.remat --out writes" in capsys.readouterr().err
    assert roofline.main([*flags, "--share=0"]) == 2


def test_the_loader_is_measured(tiny_data: Path) -> None:
    assert roofline.loader_speed(0.05, tiny_data) > 0
