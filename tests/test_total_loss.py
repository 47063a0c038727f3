"""Parameters of a term that is `first` take their step before the other terms are computed, and only its own count."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from deskpro_jax.models.contract import LossTerm, Optimizer, Recipe, StepValues
from deskpro_jax.train import optimisers
from deskpro_jax.train import step as train

RATE, OWN_RATE = 0.5, 0.25
WEIGHT, OWN = 2.0, 3.0


class Scale(nn.Module):
    """One number, times the images."""

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> tuple[Any, Any]:
        weight = self.param("weight", lambda key: jnp.asarray(WEIGHT))
        return {"body": {"logits": (weight * inputs["body"])[None]}}, {}


def product(name: str) -> Any:
    """Returns a loss: the mean output times the parameter of a term."""

    def compute(values: StepValues) -> Any:
        return values.outputs["body"]["logits"].mean() * values.parameters_of[name]["number"]

    return compute


def step(epochs: int = 1, start_epoch: int = 0) -> list[tuple[Any, Any, Any]]:
    """Returns parameters, terms and gradients of a few steps."""
    sgd = Optimizer("sgd", constant_rate=OWN_RATE, weight_decay=0.0, momentum=0.0, start_epoch=start_epoch)
    numbers = lambda counts, rng: {"number": np.asarray(OWN)}  # noqa: E731
    losses = (
        LossTerm("main", product("judge"), 10.0),
        LossTerm("judge", product("judge"), 7.0, numbers, sgd, first=True),
    )
    config = base.get_config().train
    config.optimizer, config.momentum, config.weight_decay = "sgd", 0.0, 0.0
    optimizer = optimisers.of_recipe(Recipe(losses), RATE, config, 1)
    params = {"weight": jnp.asarray(WEIGHT), "loss": {"judge": {"number": jnp.asarray(OWN)}}}
    state, result = train.create_state({"params": params}, optimizer), []
    for epoch in range(epochs):
        state, terms, gradients = train.update(
            state, {"body": jnp.ones((2, 1))}, Scale(), optimizer, losses, epoch=epoch
        )
        result.append((state.params, terms, gradients))
    return result


def test_the_others_see_its_parameters_after_their_step() -> None:
    ((params, terms, gradients),) = step()
    moved = OWN - OWN_RATE * WEIGHT  # the derivative of the product by the parameter is the output, 2
    assert params["loss"]["judge"]["number"] == pytest.approx(moved)
    assert terms["judge"] == pytest.approx(WEIGHT * OWN)  # before its step
    assert terms["main"] == pytest.approx(WEIGHT * moved)
    assert terms["total"] == pytest.approx(10 * WEIGHT * moved)  # without it
    assert gradients["loss"]["judge"]["number"] == pytest.approx(WEIGHT)  # nothing of the other term
    assert params["weight"] == pytest.approx(WEIGHT - RATE * 10 * moved)  # nothing of this one


def test_before_its_first_epoch_nothing_of_it_moves() -> None:
    steps = step(epochs=2, start_epoch=1)
    assert steps[0][0]["loss"]["judge"]["number"] == OWN
    assert steps[0][1]["main"] == pytest.approx(WEIGHT * OWN)
    output = float(steps[0][0]["weight"])
    assert steps[1][0]["loss"]["judge"]["number"] == pytest.approx(OWN - OWN_RATE * output)


@pytest.mark.parametrize(("freeze_steps", "start_step"), [(0, 2), (1, 2), (3, 2)])
def test_an_optimiser_that_starts_later_begins_with_no_moments_while_the_schedule_runs_on(
    freeze_steps: int, start_step: int
) -> None:
    rate = lambda count: 1.0 / (1 + count)  # noqa: E731
    optimizer = optimisers.optimizer("adam", rate, 0.1, freeze_steps=freeze_steps, start_step=start_step)
    params = {"classifier": jnp.ones(1), "conv": jnp.ones(1)}
    state = optimizer.init(params)
    first = {"classifier": start_step, "conv": max(freeze_steps, start_step)}
    for count in range(5):
        changes, state = jax.jit(optimizer.update)(jax.tree.map(jnp.ones_like, params), state, params)
        for name, change in changes.items():
            expected = 0.0 if count < first[name] else -rate(count)  # Adam by a constant gradient
            assert float(change[0]) == pytest.approx(expected, rel=1e-4), (name, count)
