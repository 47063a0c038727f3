"""A run leaves all it should, goes on from any interruption bit for bit, and ends with a clear line when it cannot."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import forked
import runs
from deskpro_jax.config import fields as fields_
from deskpro_jax.errors import MissingInputError, RunError

PHASES = ("teacher", "student")


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def scores(folder: Path) -> list[dict[str, object]]:
    return json.loads((folder / "results.json").read_text())["results"]


@pytest.mark.slow
def test_a_run_leaves_checkpoints_metrics_events_and_results(reference: Path, tiny_data: Path) -> None:
    config = runs.config(tiny_data)
    for phase in PHASES:
        last = 2 * runs.STEPS[phase]
        assert runs.saved_steps(reference / phase)[-1] == last
        assert sorted(runs.losses(reference / phase)) == list(range(1, last + 1))
        evaluations = [line["step"] for line in runs.lines(reference / phase) if "mAP" in line]
        assert evaluations == [last]  # eval.every = 0: at the end alone
        assert list((reference / phase).glob("events.out.tfevents.*"))
        assert "neck/scale" in (reference / phase / "parameters.txt").read_text()
    assert fields_.flatten(json.loads((reference / "config.json").read_text())) == fields_.flatten(config)

    record = json.loads((reference / "results.json").read_text())
    assert record["seed"] == config.seed
    assert record["dataset"] == "synthetic_tiny"
    assert record["checkpoint"] == {"report": "last", "teacher": 10, "student": 12}
    assert record["versions"]["jax"] == jax.__version__
    assert fields_.flatten(record["config"]) == fields_.flatten(config)
    assert [(r["protocol"], r["stream"]) for r in record["results"]] == [
        (protocol, stream) for protocol in ("general", "cc") for stream in ("face", "body", "both")
    ]
    table = (reference / "results.md").read_text()
    assert all(stream in table for stream in ("face", "body", "both"))


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(reference: Path, tiny_data: Path, tmp_path: Path) -> None:
    again = copy(reference, tmp_path)
    before = {phase: (again / phase / "metrics.jsonl").read_bytes() for phase in PHASES}
    (again / "results.json").unlink()
    runs.run(runs.config(tiny_data), again)
    assert scores(again) == scores(reference)
    assert {phase: (again / phase / "metrics.jsonl").read_bytes() for phase in PHASES} == before


def test_evaluation_alone_gives_the_same_scores(reference: Path, tiny_data: Path, tmp_path: Path) -> None:
    again = copy(reference, tmp_path)
    (again / "results.json").unlink()
    for phase in PHASES:
        (again / phase / "metrics.jsonl").unlink()
    runs.run(runs.config(tiny_data), again, "evaluate")
    assert scores(again) == scores(reference)
    assert not list(again.glob("*/metrics.jsonl"))


def test_evaluation_without_a_run_says_so(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no workdir at .*absent"):
        runs.run(runs.config(tiny_data), tmp_path / "absent", "evaluate")
    assert not (tmp_path / "absent").exists()
    with pytest.raises(MissingInputError, match="no checkpoint"):
        runs.run(runs.config(tiny_data), tmp_path, "evaluate")


@pytest.mark.slow
def test_killed_and_stopped_at_random_steps_it_ends_with_the_same_bits(
    reference: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config, arguments = runs.config(tiny_data), runs.flags(tmp_path, tiny_data)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the steps: {seed}")  # shown when the test fails
    killed, stopped = (random.Random(seed).randint(1, 2 * runs.STEPS[phase] - 2) for phase in PHASES)
    code, _, err = runs.interrupt("SIGKILL", "teacher", killed, arguments)
    assert code == -9, f"teacher, step {killed}: {err}"
    assert max(runs.losses(tmp_path / "teacher")) == killed
    code, _, err = runs.interrupt("SIGTERM", "student", stopped, arguments)
    assert code == 0, err
    assert f"SIGTERM: saved the student after step {stopped + 1} of 12" in err
    assert runs.saved_steps(tmp_path / "student")[-1] == stopped + 1
    before = runs.lines(tmp_path / "student")
    assert [line["step"] for line in before] == list(range(1, stopped + 2))

    runs.run(config, tmp_path)
    assert runs.lines(tmp_path / "student")[: stopped + 1] == before
    for phase in PHASES:
        found, expected = (runs.saved_state(folder, phase, config) for folder in (tmp_path, reference))
        runs.assert_same_state(found, expected)
        assert runs.losses(tmp_path / phase) == runs.losses(reference / phase), phase
    assert scores(tmp_path) == scores(reference)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_loses_nothing(
    reference: Path, tiny_data: Path, tmp_path: Path
) -> None:
    # Back at its first epoch, the teacher meets a rate that no network survives.
    broken, config = copy(reference, tmp_path), runs.config(tiny_data)
    shutil.rmtree(broken / "teacher" / "checkpoints" / "10")
    kept = {phase: runs.saved_state(broken, phase, config) for phase in PHASES}
    (broken / "config.json").unlink()
    code, _, err = runs.command(runs.flags(broken, tiny_data, train__base_lr=1e30))
    assert code == 1, err
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert re.search(r"the loss term \w+ of the teacher phase is -?(nan|inf) at step 7\.", errors[0])
    assert "Last good checkpoint: step 5." in errors[0]
    for phase in PHASES:
        runs.assert_same_state(runs.saved_state(broken, phase, config), kept[phase])


def test_a_given_teacher_that_is_not_there_is_named(tiny_data: Path, tmp_path: Path) -> None:
    config = runs.config(tiny_data, teacher__checkpoint=str(tmp_path / "nobody"))
    with pytest.raises(MissingInputError, match=r"teacher\.checkpoint is .*nobody; expected a workdir with teacher/"):
        runs.run(config, tmp_path / "run")


def test_a_phase_beyond_its_epochs_is_refused(reference: Path, tiny_data: Path, tmp_path: Path) -> None:
    again = copy(reference, tmp_path)
    (again / "config.json").unlink()
    with pytest.raises(RunError, match="is at step 10, beyond the 5 steps of 1 epochs"):
        runs.run(runs.config(tiny_data, teacher__epochs=1), again)


WRONG = [
    (["--config.train.epoch=3"], 'Did you mean "epochs"'),
    (["--config.train.epochs=many"], "--config.train.epochs=many: invalid literal for int"),
    (["--config.data.name=synthetic_tny"], "did you mean synthetic_tiny"),
    (["--config.model.backbone=x1"], "x1_0"),
    (["--config.eval.protocols=genral"], "has no protocol 'genral'; did you mean general?"),
    (["--config.eval.report=best"], "eval.report is 'best'; expected one of last, validation, stitched."),
    (["--mode=evalute"], "should be one of <train|evaluate>"),
    (["--mode=evaluate"], "no workdir at"),
    (["--coordinator=127.0.0.1:1", "--processes=2"], "--coordinator needs --processes"),
    (["--coordinator=auto"], "--coordinator=auto works on a TPU slice, under Slurm and under Open MPI"),
    (["again"], "unexpected argument 'again'"),
    ([f"--config={runs.ROOT}/configs/synthetic.py:debgu"], "did you mean debug?"),
    ([f"--config={runs.ROOT}/configs/sinthetic.py"], "there is no such file"),
]


@pytest.fixture(scope="module")
def refusals(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[forked.Ended]:
    folder = tmp_path_factory.mktemp("refusals")
    own = runs.flags(folder / "run", tiny_data)
    return forked.run([["train", *own, *arguments] for arguments, _ in WRONG], folder)


@pytest.mark.parametrize("case", range(len(WRONG)), ids=[message for _, message in WRONG])
def test_a_wrong_command_ends_with_one_line_and_code_2(case: int, refusals: list[forked.Ended]) -> None:
    code, _, err = refusals[case]
    assert code == 2, err
    assert WRONG[case][1] in err.splitlines()[-1]
    assert "Traceback" not in err


def test_losses_of_every_step_are_finite(reference: Path) -> None:
    for phase in PHASES:
        values = [list(terms.values()) for terms in runs.losses(reference / phase).values()]
        assert np.isfinite(values).all()
