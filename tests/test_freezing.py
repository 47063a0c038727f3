"""`train.freeze_epochs`, in which only classifiers train; terms of the loss with parameters of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import runs

STEPS = 6  # of an epoch


def classifiers(state: dict[str, np.ndarray]) -> set[str]:
    """Returns the names of the classifiers' parameters."""
    return {name for name in state if name.startswith("['params']") and "['classifier" in name}


def network(state: dict[str, np.ndarray]) -> set[str]:
    """Returns the names of everything that an embedding depends on."""
    return {name for name in state if name.startswith(("['params']", "['batch_stats']"))} - classifiers(state)


def test_frozen_epochs_leave_the_network_and_its_statistics_as_they_are(tiny_data: Path, tmp_path: Path) -> None:
    states = {}
    for frozen, epochs in ((0, 0), (1, 1), (1, 2)):
        fields = {"train__freeze_epochs": frozen, "train__epochs": epochs, "train__base_lr": 1e-3}
        folder = tmp_path / f"{frozen}_{epochs}"
        runs.run(runs.config(tiny_data, "csa_att,debug", **fields), folder)
        states[epochs] = runs.stored_state(folder / "student", epochs * STEPS)
    start, during, after = states[0], states[1], states[2]
    assert network(start)
    assert classifiers(start)
    for name in network(start):
        np.testing.assert_array_equal(during[name], start[name], err_msg=name)
    for name in classifiers(start):
        assert (during[name] != start[name]).any(), name
    moved = [name for name in network(start) if (after[name] != start[name]).any()]
    assert len(moved) > 0.5 * len(network(start))


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
