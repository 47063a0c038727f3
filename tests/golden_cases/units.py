"""Cases of golden files that need no network: losses by themselves, and learning rates of each epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from configs import base
from deskpro_jax import losses
from deskpro_jax.train import schedules
from golden_cases import Golden

EXACT = 1e-9  # of the largest value, in float64


def is_unit(golden: Golden, case: str) -> bool:
    """Returns whether a case of a file is one of these."""
    if "cases" not in golden.meta:  # the file of a method that runs all of its cases itself, but perhaps a schedule
        return case == "schedule" and "schedule" in golden.meta
    return case == "schedule" or ("_unit" in case and case.split("_unit")[0] in _checks())


def run(golden: Golden, case: str) -> None:
    """Compares a case with what the package computes."""
    if case == "schedule":
        _schedule(golden)
        return
    with jax.enable_x64(True):
        _checks()[case.split("_unit")[0]](golden.meta["cases"][case], golden.case(case))


def _checks() -> dict[str, Callable[[dict[str, Any], dict[str, np.ndarray]], None]]:
    return {"triplet": _triplet, "smoothing": _smoothing, "center": _centre, "ms": _multi_similarity}


def _drawn(seed: int, shape: Any) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(tuple(shape))


def _compare(loss: Callable[..., Array], arguments: tuple[np.ndarray, ...], expected: dict[str, np.ndarray]) -> None:
    """Compares a loss of one output, and its gradients, those of the first argument first."""
    values = tuple(jnp.asarray(x)[None] for x in arguments)
    names = ("gradient", "centre_gradient")[: len(values)]
    value, gradients = jax.value_and_grad(lambda *x: loss(*x).sum(), argnums=tuple(range(len(values))))(*values)
    assert abs(float(value) - float(expected["loss"])) <= EXACT * max(1.0, abs(float(expected["loss"])))
    for name, gradient in zip(names, gradients, strict=True):
        largest = np.abs(expected[name]).max()
        assert np.abs(np.asarray(gradient[0]) - expected[name]).max() <= EXACT * max(largest, 1e-3), name


def _rows(meta: dict[str, Any]) -> tuple[Array, Array]:
    labels = jnp.asarray(np.asarray(meta["labels"]))
    return labels, jnp.ones(labels.shape, bool)


def _triplet(meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    features = meta["scale"] * _drawn(meta["seed"], meta["features"])
    labels, rows = _rows(meta)
    margin = meta["margin"]
    _compare(
        lambda x: losses.batch_hard_triplet(x, labels, rows, margin=margin, soft=not margin), (features,), expected
    )


def _smoothing(meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    logits = meta["scale"] * _drawn(meta["seed"], meta["logits"])
    labels, rows = _rows(meta)
    smoothing = meta["label_smoothing"]
    _compare(
        lambda x: losses.cross_entropy(x, labels, rows, smoothing=smoothing),
        (logits,),
        expected,
    )


def _centre(meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    features = _drawn(meta["seed"], meta["features"])
    centres = _drawn(meta["seed"] + 1, (meta["num_classes"], features.shape[1]))
    labels, rows = _rows(meta)
    _compare(lambda x, c: losses.centre_loss(x, c, labels, rows), (features, centres), expected)


def _multi_similarity(meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    labels, rows = _rows(meta)
    margin = meta["margin"]
    _compare(
        lambda x: losses.multi_similarity(x, labels, rows, margin=margin),
        (np.asarray(expected["features"], np.float64),),
        expected,
    )


def _schedule(golden: Golden) -> None:
    meta = golden.meta.get("cases", golden.meta)["schedule"]
    if "learning_rate" in meta:  # as SPS's code names them
        names = {
            "base": "learning_rate",
            "warmup_epochs": "warmup_iters",
            "milestones": "steps",
            "epochs": "max_epochs",
        }
        meta = meta | {own: meta[name] for own, name in names.items()}
    train = base.get_config().train
    train.base_lr, train.reference_batch, train.warmup_epochs = meta["base"], 0, meta["warmup_epochs"]
    train.warmup_factor = meta.get("warmup_factor", 0.0)
    if "milestones" in meta:
        train.schedule, train.milestones, train.decay = "step", tuple(meta["milestones"]), meta["gamma"]
    else:
        train.final_fraction = meta["final_fraction"]
    rates = schedules.epoch_rates(train, 64, meta["epochs"])
    expected = golden.case("schedule")["lr_per_epoch"]
    np.testing.assert_allclose(rates, expected, rtol=1e-6, err_msg=json.dumps(meta))
