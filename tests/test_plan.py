"""The plan of a run names its stages in their order, what is done of them, and the work that is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import runs
import stand_in
from deskpro_jax import methods
from deskpro_jax.data.opening import load_data
from deskpro_jax.train import plan


def described(folder: Path, config, done=None) -> list[str]:
    specs = methods.phases(config)
    return plan.describe(config, folder, specs, plan.epochs_done(folder, specs) if done is None else done)


def test_a_new_run_draws_trains_and_evaluates(tmp_path: Path) -> None:
    config = runs.config(tmp_path / "data", teacher__epochs=8, train__epochs=1)
    first, *stages = described(tmp_path, config)
    assert first.startswith(f"{tmp_path}: 4 stages;")
    assert stages == [
        f"  1. draw the dataset synthetic_tiny into {tmp_path / 'data'}",
        "  2. train the teacher, 8 epochs",
        "  3. train the student, 1 epoch",
        f"  4. evaluate; the results go into {tmp_path / 'results.json'}",
    ]


def test_photos_are_built_a_given_teacher_is_named_and_a_method_of_one_phase_has_one(tmp_path: Path) -> None:
    fields = {"data__name": "prcc", "data__raw_dir": "photos"}
    given = described(tmp_path, runs.config(tmp_path, teacher__checkpoint="runs/other", **fields))
    assert given[1] == f"  1. build the dataset prcc from photos into {tmp_path}"
    assert given[2] == "  2. teacher: given by teacher.checkpoint, runs/other"
    one = described(tmp_path, runs.config(tmp_path, "osnet,debug", train__epochs=3, model__backbone="x0_25", **fields))
    assert one[2:-1] == ["  2. train the osnet, 3 epochs"]


def test_a_run_that_goes_on_says_what_is_done(tiny_data: Path, tmp_path: Path) -> None:
    config = runs.config(tiny_data, train__epochs=3, **stand_in.FIELDS)
    with stand_in.small_streams():
        runs.run(config, tmp_path)
    config.train.epochs = 5
    stages = described(tmp_path, config)[1:]
    assert stages[:3] == [
        f"  1. dataset synthetic_tiny: done, in {tiny_data}",
        "  2. teacher: done, 2 epochs",
        "  3. train the student, 5 epochs, 3 of them done",
    ]
    assert "2.5 of them done" in described(tmp_path, config, {"student": 2.5})[3]


def test_the_work_that_is_left_is_steps_evaluations_and_what_follows(tiny_data: Path, tmp_path: Path) -> None:
    config = runs.config(
        tiny_data, teacher__epochs=2, train__epochs=4, eval__every=2, eval__flip=False,
        data__body_size=(20, 10), data__face_size=(10, 10),
    )  # fmt: skip
    config.data.identities, config.data.images_per_identity = 2, 2
    data, specs = load_data(config, tmp_path), methods.phases(config)
    scored = len(data.query) + len(data.gallery)
    work = plan.work_left(config, data, specs, {})
    teacher, student, evaluation = work["teacher"]
    assert work["student"] == (student, evaluation)
    assert (teacher.step, student.step) == (4 * 3 * 100, 4 * (3 * 300 + 100))  # passes of pixels
    assert (teacher.program, student.program, evaluation.program) == (3, 7, 2)
    assert (teacher.beside, student.beside) == (scored * 100, 2 * scored * 300)
    assert evaluation.beside == scored * 300
    assert teacher.steps < 2 * len(data.train) // 4  # images without a face are left out
    later = plan.work_left(config, data, specs, {"teacher": 2.0, "student": 2.0})
    assert list(later) == ["student"]
    assert (later["student"][0].steps, later["student"][0].beside) == (student.steps // 2, scored * 300)


def test_the_plan_is_printed_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:

    class Drawn(Exception):
        pass

    def load(*_: object) -> None:
        assert "1. draw the dataset synthetic_tiny" in capfd.readouterr().err
        raise Drawn

    monkeypatch.setattr("deskpro_jax.experiment.load_data", load)
    with pytest.raises(Drawn):
        runs.run(runs.config(tmp_path / "data"), tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text())
