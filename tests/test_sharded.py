"""Devices and processes share the work and change nothing."""

from __future__ import annotations

import json
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runs

SCRIPT = Path(__file__).with_name("device_losses.py")
RECORDED = Path(__file__).with_name("recorded_reads.py")
BATCH, STEPS = 8, 12  # images of a step; steps of the student phase
AHEAD = 4 + 2  # batches that are read before they are used, and one or two in the making


def command(folder: Path, data: Path, signal: tuple[str, ...] = ("-",), **fields: Any) -> list[str]:
    """Returns the command line of a run of the smallest network; `folder/read.txt` gets what it reads."""
    flags = runs.flags(folder, data, "face_fkp,debug", eval__flip=False, **fields)
    return [str(RECORDED), str(folder / "read.txt"), *signal, *flags]


def together(arguments: list[str], processes: int) -> list[tuple[int, str, str]]:
    """Runs a command as several processes of one device each; `read.txt` becomes `read-I.txt`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for n in range(processes):
        script, file, *rest = arguments
        flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}", f"--process={n}"]
        flags = flags if processes > 1 else []
        place = Path(file).with_name(f"read-{n}.txt")
        started.append(runs.start([script, str(place), *rest, *flags], devices=1))
    return [runs.finish(process) for process in started]


def reads(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def scores(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "results.json").read_text())["results"]


def assert_as_one_device(folder: Path, reference: Path) -> None:
    """Fails unless losses and gradients are those of the reference, and the embeddings score the same."""
    found, expected = runs.losses(folder / "student"), runs.losses(reference / "student")
    assert sorted(found) == list(range(1, STEPS + 1))
    for step, terms in found.items():
        for name, value in terms.items():
            # kd is 1e-3 beside logits' entropies of 14: it carries their rounding.
            absolute = 1e-5 if name == "kd" else 0.0
            np.testing.assert_allclose(value, expected[step][name], rtol=1e-4, atol=absolute, err_msg=f"{name}, {step}")
    # Adam's first moment is the mean of gradients, which only the sum over all devices makes right.
    moments, wanted = (runs.stored_state(place / "student", STEPS) for place in (folder, reference))
    classifiers = [name for name in wanted if "'mu'" in name and "'classifier'" in name]
    assert len(classifiers) == 1
    for name in classifiers:
        assert np.abs(moments[name] - wanted[name]).max() < 1e-3 * np.abs(wanted[name]).max(), name
    assert [s["stream"] for s in scores(folder)] == [s["stream"] for s in scores(reference)]
    for one, other in zip(scores(folder), scores(reference), strict=True):
        assert one["mAP"] == pytest.approx(other["mAP"], abs=1e-3)


@pytest.fixture(scope="module")
def alone(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of one process with one device."""
    folder = tmp_path_factory.mktemp("alone")
    code, _, err = runs.finish(runs.start(command(folder, tiny_data), devices=1))
    assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def begun(alone: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run stopped at step 8 of 12, on eight devices that hold the classifiers in eight parts."""
    folder = tmp_path_factory.mktemp("begun")
    fields = {"teacher__checkpoint": str(alone), "mesh__model": 8}
    code, _, err = runs.finish(runs.start(command(folder, tiny_data, ("SIGTERM", "student", "7"), **fields), devices=8))
    assert code == 0, err
    assert runs.saved_steps(folder / "student")[-1] == 8
    return folder


@pytest.mark.slow
def test_meshes_give_the_same_losses(tiny_data: Path) -> None:
    # Eight images on three devices are nine rows, one of them padding.
    code, out, err = runs.finish(runs.start([str(SCRIPT), str(tiny_data), "1x1", "3x1"], devices=3))
    assert code == 0, err
    one, three = json.loads(out.splitlines()[-1])
    assert len(one) == 10
    for step, (found, expected) in enumerate(zip(three, one, strict=True)):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=f"{name}, step {step}")


@pytest.mark.slow
def test_four_processes_train_and_embed_as_one_does_and_read_a_quarter_each(
    alone: Path, tiny_data: Path, tmp_path: Path
) -> None:
    ended = together(command(tmp_path, tiny_data, teacher__checkpoint=str(alone)), 4)
    for number, (code, out, err) in enumerate(ended):
        assert code == 0, err
        assert ("counted" in out) == (number == 0)  # the table
    assert_as_one_device(tmp_path, alone)
    assert len(list((tmp_path / "student").glob("events.out.tfevents.*"))) == 1
    share = BATCH // 4
    for number in range(4):
        assert STEPS * share <= len(reads(tmp_path / f"read-{number}.txt")) <= (STEPS + AHEAD) * share, number


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_begun_on_eight_devices_goes_on(
    processes: int, begun: Path, alone: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(begun, tmp_path / "run"))
    arguments = command(folder, tiny_data, teacher__checkpoint=str(alone), mesh__model=processes)
    for code, _, err in together(arguments, processes):
        assert code == 0, err
    assert_as_one_device(folder, alone)
    read = Counter(len(reads(folder / f"read-{n}.txt")) for n in range(processes))
    share = BATCH // processes
    assert all(4 * share <= count <= (4 + AHEAD) * share for count in read)
