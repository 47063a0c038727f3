"""Devices and processes share the work and change nothing."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import runs

SCRIPT = Path(__file__).with_name("device_losses.py")


def assert_close(found: dict[int, dict[str, float]], expected: dict[int, dict[str, float]]) -> None:
    for step, terms in found.items():
        for name, value in terms.items():
            # kd is 1e-3 beside logits' entropies of 14: it carries their rounding.
            absolute = 1e-5 if name == "kd" else 0.0
            np.testing.assert_allclose(value, expected[step][name], rtol=1e-4, atol=absolute, err_msg=f"{name}, {step}")


@pytest.mark.slow
def test_one_three_and_eight_devices_give_the_same_losses(tiny_data: Path) -> None:
    # Eight images on three devices are nine rows, one of them padding.
    code, out, err = runs.finish(runs.start([str(SCRIPT), str(tiny_data), "1", "8", "3"], devices=8))
    assert code == 0, err
    one, *others = json.loads(out.splitlines()[-1])
    assert len(one) == 10
    for other in others:
        for step, (found, expected) in enumerate(zip(other, one, strict=True)):
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=f"{name}, step {step}")


@pytest.mark.slow
def test_a_run_begun_on_eight_devices_goes_on_on_one(reference: Path, tiny_data: Path, tmp_path: Path) -> None:
    fields = {"teacher__checkpoint": str(reference)}
    arguments = runs.flags(tmp_path, tiny_data, **fields)
    code, _, err = runs.interrupt("SIGTERM", "student", 7, arguments, devices=8)
    assert code == 0, err
    assert runs.saved_steps(tmp_path / "student")[-1] == 8
    runs.run(runs.config(tiny_data, **fields), tmp_path)
    found = runs.losses(tmp_path / "student")
    assert sorted(found) == list(range(1, 13))
    assert_close(found, runs.losses(reference / "student"))


@pytest.mark.slow
def test_two_processes_train_as_one_does(reference: Path, tiny_data: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fields = {"teacher__checkpoint": str(reference)}
    arguments = runs.flags(tmp_path, tiny_data, **fields)
    together = [
        runs.start(
            [
                "-m",
                "deskpro_jax.main",
                *arguments,
                f"--coordinator=127.0.0.1:{port}",
                "--processes=2",
                f"--process={n}",
            ],
            devices=1,
        )
        for n in range(2)
    ]
    for number, (code, out, err) in enumerate(map(runs.finish, together)):
        assert code == 0, err
        assert ("counted" in out) == (number == 0)  # the table
    assert_close(runs.losses(tmp_path / "student"), runs.losses(reference / "student"))
    assert len(list((tmp_path / "student").glob("events.out.tfevents.*"))) == 1
    # Adam's first moment is the mean of gradients, which only the sum over both processes makes right.
    config = runs.config(tiny_data)
    found, expected = (runs.saved_state(folder, "student", config) for folder in (tmp_path, reference))
    for name in (name for name in expected if ".mu" in name and "classifier" in name):
        assert np.abs(found[name] - expected[name]).max() < 1e-3 * np.abs(expected[name]).max(), name
