"""A run says which of its losses the dataset leaves without anything to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import runs
from deskpro_jax import experiment
from deskpro_jax.data import opening
from deskpro_jax.data.load import dataset


@pytest.mark.parametrize(
    ("variant", "masks", "fields", "said"),
    [
        ("deskpro", 0, {}, True),
        ("deskpro", 1, {}, False),
        ("deskpro", 0, {"loss.attention_weight": 0.0}, False),
        ("csa", 0, {}, False),
        ("baseline", 0, {}, False),
        ("face_fkp", 0, {}, False),
    ],
)
def test_a_run_without_any_mask_says_that_l_att_is_off(
    tiny_data: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
    masks: int,
    fields: dict[str, float],
    said: bool,
) -> None:
    split = dataset.load("synthetic_tiny", tiny_data, "train")
    has_mask = np.arange(len(split)) < masks
    data = opening.Data(dataclasses.replace(split, has_mask=has_mask), split, split, None, runs.CLASSES)
    monkeypatch.setattr(experiment, "run_phase", lambda *_: ({}, 0))
    config = runs.config(tiny_data, f"debug,{variant}", **{name.replace(".", "__"): v for name, v in fields.items()})
    experiment._student(config, tmp_path, experiment.sharding.make_mesh(config), data, None, None, None)
    assert ("L_att is off: no image of synthetic_tiny/train has a mask" in caplog.text) == said
