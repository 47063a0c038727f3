"""`train.freeze_epochs`, in which only classifiers train; terms of the loss with parameters of their own."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import runs
import stand_in
from deskpro_jax.errors import Stopped

STEPS = 6  # of an epoch


def classifiers(state: dict[str, np.ndarray]) -> set[str]:
    """Returns the names of the classifiers' parameters."""
    return {name for name in state if name.startswith("['params']") and "['classifier" in name}


def network(state: dict[str, np.ndarray]) -> set[str]:
    """Returns the names of everything that an embedding depends on."""
    return {name for name in state if name.startswith(("['params']", "['batch_stats']"))} - classifiers(state)


def test_frozen_epochs_leave_the_network_as_it_is_however_often_the_run_is_stopped(
    tiny_data: Path, tmp_path: Path
) -> None:
    config = runs.config(tiny_data, "csa_att,debug", train__freeze_epochs=1, train__epochs=2, train__base_lr=1e-3)
    runs.run(runs.config(tiny_data, "csa_att,debug", train__epochs=0), tmp_path / "start")
    runs.run(config, tmp_path / "whole")
    start = runs.stored_state(tmp_path / "start" / "student", 0)
    during, after = (runs.stored_state(tmp_path / "whole" / "student", epoch * STEPS) for epoch in (1, 2))
    assert network(start)
    assert classifiers(start)
    for name in network(start):
        np.testing.assert_array_equal(during[name], start[name], err_msg=name)
    for name in classifiers(start):
        assert (during[name] != start[name]).any(), name
    moved = [name for name in network(start) if (after[name] != start[name]).any()]
    assert len(moved) > 0.5 * len(network(start))

    for step in (3, STEPS):  # in the middle of the frozen epoch, and at its end
        with stand_in.moments(stand_in.sender(f"SIGTERM@step-student-{step - 1}")), pytest.raises(Stopped):
            runs.run(config, tmp_path / "stopped")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ignored since then
        assert runs.saved_steps(tmp_path / "stopped" / "student")[-1] == step
    runs.run(config, tmp_path / "stopped")
    runs.assert_same_state(runs.stored_state(tmp_path / "stopped" / "student", 2 * STEPS), after)


def test_centres_are_trained_saved_and_no_part_of_the_network(tiny_data: Path, tmp_path: Path) -> None:
    given = {"loss__centre_weight": 0.0005, "train__epochs": 1}
    runs.run(runs.config(tiny_data, "csa_att,debug", **given), tmp_path)
    terms = runs.losses(tmp_path / "student")
    values = [values["centre_body"] for values in terms.values()]
    assert np.isfinite(values).all()
    state = runs.stored_state(tmp_path / "student", STEPS)
    (name,) = (name for name in state if name.startswith("['params']['loss']"))
    assert state[name].shape == (3, runs.CLASSES, 32)
    assert runs.run(runs.config(tiny_data, "csa_att,debug", **given), tmp_path, "evaluate")
