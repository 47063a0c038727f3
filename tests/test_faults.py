"""Killed, stopped, damaged, out of space or fed what cannot be read, a run says so and loses nothing that was saved."""

from __future__ import annotations

import contextlib
import json
import logging as std_logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

import runs
import stand_in
from benchmarks import same_run, soak
from deskpro_jax.checkpoints.metadata import saved_tree
from deskpro_jax.checkpoints.scores import SCORES_FILE
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.cli import train
from deskpro_jax.errors import InputError, RunError, Stopped
from deskpro_jax.storage import checksums
from deskpro_jax.storage.files import is_temporary
from deskpro_jax.train.metrics_file import MetricWriter
from deskpro_jax.workdir.networks import read_checkpoint


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with stand_in.small_streams():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """The dataset where this module may damage copies of it."""
    return Path(shutil.copytree(tiny_data, tmp_path_factory.mktemp("faults") / "data"))


@pytest.fixture(scope="module")
def config(data: Path) -> ConfigDict:
    return runs.config(data, **stand_in.FIELDS)


@pytest.fixture(scope="module")
def undisturbed(config: ConfigDict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run that nothing disturbed; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runs.run(config, folder)
    return folder


@pytest.fixture
def copy(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "copy"))


def goes_on(config: ConfigDict, folder: Path, undisturbed: Path) -> None:
    """Runs to the end, which has to be that of the undisturbed run."""
    runs.run(config, folder)
    differences, counts = same_run.compare(folder, undisturbed)
    assert differences == []
    assert counts["arrays"] > 30
    assert (
        counts["metric lines"] == 6 + 7 + 2 * 2
    )  # of 10 and 12 steps: the first, every second, epoch ends; evaluations


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


# Signals, in this process.


@pytest.mark.parametrize("phase", ["teacher", "student"])
def test_stopped_at_an_epochs_end_it_evaluates_that_epoch_first_when_it_goes_on(
    phase: str, config: ConfigDict, undisturbed: Path, tmp_path: Path
) -> None:
    step = runs.STEPS[phase]
    with stand_in.moments(stand_in.sender(f"SIGTERM@step-{phase}-{step - 1}")), pytest.raises(Stopped) as stop:
        runs.run(config, tmp_path)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ignored since then
    assert f"SIGTERM: saved the {phase} after step {step} of {2 * step}" in str(stop.value)
    assert not any("mAP" in line for line in runs.lines(tmp_path / phase))
    goes_on(config, tmp_path, undisturbed)


def test_stopped_at_the_very_end_of_a_phase_it_still_evaluates_it(
    config: ConfigDict, undisturbed: Path, copy: Path
) -> None:
    shutil.rmtree(copy / "student")
    last = 2 * runs.STEPS["student"]
    with stand_in.moments(stand_in.sender(f"SIGTERM@step-student-{last - 1}")), pytest.raises(Stopped):
        runs.run(config, copy)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    goes_on(config, copy, undisturbed)


def test_loss_terms_of_a_line_that_was_not_due_are_kept_for_it(
    config: ConfigDict, undisturbed: Path, copy: Path
) -> None:
    shutil.rmtree(copy / "student")
    with stand_in.moments(stand_in.sender("SIGTERM@step-student-8")), pytest.raises(Stopped):
        runs.run(config, copy)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert runs.saved_steps(copy / "student")[-1] == 9
    assert [line["step"] for line in runs.lines(copy / "student")] == [1, 3, 5, 6, 6, 8]
    goes_on(config, copy, undisturbed)
    assert [line["step"] for line in runs.lines(copy / "student") if "total" in line] == [1, 3, 5, 6, 8, 10, 12]


# Damage to checkpoints.


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of two steps, the older with the better score."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    with CheckpointStore(folder, best_metric="mAP", asynchronous=False) as store:
        for step, score in ((5, 0.9), (10, 0.5)):
            store.save(step, state(step), data={"skipped": step}, wait=True)
            store.add_scores(step, {"mAP": score})
    return folder


def state(step: int) -> dict[str, Any]:
    params = {"face_stream": {"classifier": {"kernel": jnp.full((7, 4, 3), float(step))}}}
    return {"params": params, "batch_stats": {"mean": jnp.arange(5.0)}, "step": jnp.asarray(step)}


def files(step: Path) -> list[Path]:
    return sorted(path for path in step.rglob("*") if path.is_file())


def test_any_flipped_bit_of_any_file_is_noticed(two: Path, tmp_path: Path) -> None:
    step = Path(shutil.copytree(two / "10", tmp_path / "10"))
    rng = random.Random(0)
    for path in files(step):
        whole = path.read_bytes()
        tries = 300 if path.name == checksums.CHECKSUM_FILE else 5
        for bit in rng.sample(range(8 * len(whole)), min(tries, 8 * len(whole))):
            flip(path, bit)
            assert checksums.find_damage(step), f"bit {bit} of {path}"
            path.write_bytes(whole)
    assert checksums.find_damage(step) == ""


@pytest.mark.parametrize("damage", ["cut", "emptied", "deleted"])
def test_any_file_that_is_not_whole_is_noticed(damage: str, two: Path, tmp_path: Path) -> None:
    step = Path(shutil.copytree(two / "10", tmp_path / "10"))
    for path in files(step):
        whole = path.read_bytes()
        if not whole or (damage == "deleted" and path.name == checksums.CHECKSUM_FILE):
            continue
        path.write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
        if damage == "deleted":
            path.unlink()
        found = checksums.find_damage(step)
        assert path.name in found
        assert ("is missing" if damage == "deleted" else "") in found
        path.write_bytes(whole)


def copied(two: Path, to: Path) -> Path:
    """Returns a copy of the two checkpoints with their scores."""
    return Path(shutil.copytree(two.parent, to)) / two.name


@pytest.mark.parametrize("content", ["flipped", "cut", "[1]"])
def test_a_damaged_score_does_not_make_another_checkpoint_the_best_unnoticed(
    content: str, two: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copied(two, tmp_path / "two")
    file = folder.parent / SCORES_FILE
    whole = file.read_text()
    assert "0.9" in whole
    file.write_text({"flipped": whole.replace("0.9", "0.1"), "cut": whole[:-20]}.get(content, content))
    template = {"params": state(0)["params"]}
    with CheckpointStore(folder, best_metric="mAP", read_only=True) as store, caplog.at_level(std_logging.WARNING):
        if content == "flipped":
            restored = store.restore_subtree(template, "best")
            assert restored is not None
            assert restored.step == 10
            assert f"{file} is damaged: the scores of step 5 are not compared with others" in caplog.text
        else:
            with pytest.raises(InputError, match=r"has the metric 'mAP' \(steps \[10, 5\]\): ask for the latest"):
                store.restore_subtree(template, "best")
            assert f"{file} is damaged, its scores are not used" in caplog.text


@pytest.mark.parametrize("killed", [True, False])
def test_scores_are_added_whole_or_not_at_all(
    killed: bool, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, unlink = copied(two, tmp_path / "two"), Path.unlink

    def dying(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with CheckpointStore(folder, best_metric="mAP") as store, monkeypatch.context() as patch:
        if killed:
            patch.setattr(Path, "replace", dying)
            # Nothing is cleaned up after a kill.
            kept = lambda path, missing_ok=False: None if is_temporary(path) else unlink(path, missing_ok)  # noqa: E731
            patch.setattr(Path, "unlink", kept)
        with pytest.raises(KeyboardInterrupt) if killed else contextlib.nullcontext():
            store.add_scores(10, {"mAP": 0.7})
    hidden = lambda: [path for path in folder.parent.rglob(".*") if path.is_file()]  # noqa: E731
    assert len(hidden()) == killed  # as a kill would leave it
    with CheckpointStore(folder, best_metric="mAP") as store:
        restored = store.restore(state(0))
        assert restored is not None
        assert (restored.step, restored.scores) == (10, {"mAP": 0.5 if killed else 0.7})
    assert not hidden()
    assert not checksums.find_damage(folder / "10")


def test_shapes_are_those_of_a_whole_checkpoint(two: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(two, tmp_path / "checkpoints"))
    described = folder / "10" / "state" / "_METADATA"
    assert "3" in described.read_text()
    described.write_text(described.read_text().replace("3", "2"))
    variables, step = read_checkpoint(folder, "last")
    assert step == 5
    assert (variables["params"]["face_stream"]["classifier"]["kernel"] == 5).all()
    shutil.rmtree(folder / "10")
    (folder / "10").mkdir()  # as a deletion that was killed leaves it
    assert read_checkpoint(folder, "last")[1] == 5
    (folder / "5" / "state" / "_METADATA").write_bytes(b"")
    with pytest.raises(RunError, match=r"no undamaged checkpoint(.|\n)*step 10: the folder is empty\n  step 5: "):
        read_checkpoint(folder, "last")


def test_a_damaged_end_is_trained_again_and_the_rest_used_for_evaluation(
    config: ConfigDict, undisturbed: Path, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = copy / "student" / "checkpoints" / "12"
    flip(max(files(last), key=lambda path: path.stat().st_size), 4321)
    with caplog.at_level(std_logging.WARNING):
        runs.run(config, copy, "evaluate")
    assert f"checkpoint {last} is damaged and not used: state/" in caplog.text
    assert "differs from its checksum" in caplog.text
    assert f"going on from checkpoint {last.with_name('6')} in place of step 12" in caplog.text
    assert json.loads((copy / "results.json").read_text())["checkpoint"]["student"] == 6
    goes_on_with_damage = copy / "student" / "checkpoints" / "damaged_12"
    runs.run(config, copy)
    assert goes_on_with_damage.is_dir()
    shutil.rmtree(goes_on_with_damage)
    assert same_run.compare(copy, undisturbed)[0] == []


def test_without_a_whole_checkpoint_nothing_starts_from_zero(config: ConfigDict, copy: Path) -> None:
    for step in ("6", "12"):
        (copy / "student" / "checkpoints" / step / "checksums.json").write_bytes(b"")
    before = (copy / "student" / "metrics.jsonl").read_bytes()
    for mode in ("train", "evaluate"):
        with pytest.raises(RunError, match=r"no undamaged checkpoint(.|\n)*step 12: checksums.json is unreadable"):
            runs.run(config, copy, mode)
    assert (copy / "student" / "metrics.jsonl").read_bytes() == before


# Disks.


def test_a_full_disk_is_named_and_what_was_saved_stays(
    config: ConfigDict, undisturbed: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(copy / "student")
    save = ocp.CheckpointManager.save

    def full(manager: ocp.CheckpointManager, step: int, **options: Any) -> Any:
        if step == 12:
            raise OSError(28, "No space left on device")
        return save(manager, step, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(RunError) as error:
        runs.run(config, copy)
    monkeypatch.undo()
    assert f"the checkpoint of step 12 could not be written to {copy / 'student' / 'checkpoints'}" in str(error.value)
    assert "No space left on device): check free space" in str(error.value)
    assert runs.saved_steps(copy / "student") == (6,)
    goes_on(config, copy, undisturbed)


def test_metrics_that_cannot_be_written_are_an_error_and_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MetricWriter(tmp_path) as writer, Path("/dev/full").open("w", encoding="utf-8") as full:
        writer._lines.close()
        monkeypatch.setattr(writer, "_lines", full)
        with pytest.raises(RunError, match=f"the metrics in {tmp_path} could not be written .No space left"):
            writer.scalars(1, {"loss": 1.0})


def test_main_ends_with_one_line_when_a_file_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "runs/celeb/config.json")

    monkeypatch.setattr(train.experiment, "run", full)
    for flag in ("_CONFIG", "_WORKDIR", "_MODE", "_COORDINATOR"):
        monkeypatch.setattr(train, flag, type("Flag", (), {"value": ""}))
    assert train.main(["main"]) == 1
    assert capsys.readouterr().err == (
        "error: runs/celeb/config.json cannot be used (No space left on device): free some space, or give another"
        " path.\n"
    )


# Processes that end.


LONG_CALL = """
import hashlib, sys, time
from deskpro_jax.runtime.signals import SignalGuard
with SignalGuard() as guard:
    with guard.expendable("nothing to save.", lambda: print("finished", flush=True)):
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"as deaf as a compilation", b"", 300_000_000)  # takes minutes
        print("not ended", flush=True)
"""


def test_a_signal_ends_a_process_that_is_deep_in_a_call_where_nothing_would_be_lost() -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_CALL], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "finished\n", "SIGTERM: nothing to save.\n")


ENDS: list[tuple[str, int, str]] = [
    ("SIGTERM@evaluate-teacher-5", 0, "SIGTERM: saved the teacher after step 5 of 10; run again to go on with its"),
    ("SIGKILL@save-teacher-10", -9, ""),
    ("SIGTERM@compile-student-0", 0, "SIGTERM: the student made no new step after step 0; run again to go on."),
    ("SIGTERM@step-student-7,SIGTERM@save-student-8", 0, "SIGTERM: saved the student after step 8 of 12"),
]


@pytest.mark.slow
def test_ended_at_every_kind_of_moment_it_loses_nothing(
    config: ConfigDict, data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = runs.flags(tmp_path, data, **stand_in.FIELDS)
    script = str(Path(stand_in.__file__))
    for when, expected, message in ENDS:
        code, _, err = runs.finish(runs.start([script, when, *arguments]))
        assert code == expected, f"{when}: {err}"
        assert message in err, when
        assert "Traceback" not in err
    goes_on(config, tmp_path, undisturbed)


@pytest.mark.slow
def test_a_soak_of_three_cycles_finds_nothing(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    arguments = [flag for flag in runs.flags(tmp_path, data, **stand_in.FIELDS) if not flag.startswith("--workdir")]
    command = [sys.executable, stand_in.__file__, "-"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", runs.environment()["PYTHONPATH"])
        patch.setattr(soak, "_LATE", 0.05)  # a stand-in's last steps take no longer on a fast machine
        found = soak.soak(tmp_path, 3, arguments=arguments, command=command, reference=undisturbed, seed=2)
    assert soak.faults(found) == []
    assert len(found.kills) == 3
    assert {kill.signal for kill in found.kills} == {"SIGKILL", "SIGTERM"}
    assert found.compared["checkpoints"] >= 2
    with pytest.raises(InputError, match=r"disturbed is there already: give a new folder with --out"):
        soak.soak(tmp_path, 3, arguments=arguments, command=command, reference=undisturbed)


def test_a_soak_tells_what_differs(undisturbed: Path, copy: Path) -> None:
    assert same_run.compare(copy, undisturbed)[0] == []
    with CheckpointStore(copy / "teacher" / "checkpoints", best_metric="mAP") as store:
        tree = saved_tree(copy / "teacher" / "checkpoints")
        template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
        restored = store.restore(template)
        assert restored is not None
        shutil.rmtree(copy / "teacher" / "checkpoints" / "10")
    moved = jax.tree.map(lambda leaf: leaf, restored.state)
    moved["params"]["face_stream"]["kernel"] = -moved["params"]["face_stream"]["kernel"]
    with CheckpointStore(copy / "teacher" / "checkpoints", best_metric="mAP") as store:
        store.save(10, moved, data=restored.data)
    lines = (copy / "student" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "student" / "metrics.jsonl").write_text("".join([*lines, lines[-1]]))
    (copy / "student" / ".parameters.json.77").touch()
    (copy / "results.json").unlink()
    assert same_run.compare(copy, undisturbed)[0] == [
        "teacher: 1 arrays of step 10 differ, as ['params']['face_stream']['kernel']",
        "teacher: scores.json differs",
        "student: metrics.jsonl differs (10, 9 lines)",
        "results.json differs",
        "left behind: student/.parameters.json.77",
    ]


def test_a_sigterm_that_fails_is_a_fault() -> None:
    kills = [
        soak.Kill("SIGTERM", 3, False, 0.1, 0),
        soak.Kill("SIGTERM", 3, True, 0.1, -15),
        soak.Kill("SIGKILL", 3, False, 0.1, -9),
        soak.Kill("SIGTERM", 4, False, 0.1, 1),
    ]
    assert soak.faults(soak.Soak(kills, False, ["x"], {})) == ["SIGTERM at step 4 ended in exit code 1", "x"]


# Configurations.


@pytest.fixture
def older(copy: Path) -> Path:
    """A workdir begun before `train.final_fraction` was a field."""
    fields = json.loads((copy / "config.json").read_text())
    del fields["train"]["final_fraction"]
    (copy / "config.json").write_text(json.dumps(fields))
    return copy


def test_a_field_that_a_workdir_is_older_than_counts_as_its_default(config: ConfigDict, older: Path) -> None:
    changed = config.copy_and_resolve_references()
    changed.train.final_fraction = 0.5
    with pytest.raises(InputError, match=r"\n  train.final_fraction: 0.001 there, 0.5 now\n"):
        runs.run(changed, older)
    runs.run(config, older)
    assert json.loads((older / "config.json").read_text())["train"]["final_fraction"] == 0.001
