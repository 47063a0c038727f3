"""The schedule warms up and ends where it should; Adam is PyTorch's with L2; BNNeck biases never move."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deskpro_jax.train import optimisers

BASE = 0.003


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def test_base_rate_grows_with_the_square_root_of_the_batch() -> None:
    assert optimisers.base_learning_rate(0.0006, 20) == pytest.approx(0.0006)
    assert optimisers.base_learning_rate(0.0006, 80) == pytest.approx(0.0012)
    assert optimisers.base_learning_rate(0.0006, 30) == pytest.approx(0.000735, abs=5e-7)


def test_warm_up_is_linear_and_reaches_the_base_rate_in_its_last_epoch() -> None:
    rates = optimisers.learning_rates(BASE, 30, 10, 0.001)
    np.testing.assert_allclose(rates[:10], BASE * np.arange(1, 11) / 10)
    assert rates[10] == pytest.approx(BASE)
    assert rates.max() == pytest.approx(BASE)


@pytest.mark.parametrize(("epochs", "warmup"), [(140, 10), (12, 10), (2, 0), (60, 0)])
def test_the_last_epoch_has_the_final_fraction_of_the_base_rate(epochs: int, warmup: int) -> None:
    rates = optimisers.learning_rates(BASE, epochs, warmup, 0.001)
    assert len(rates) == epochs
    assert rates[-1] == pytest.approx(BASE / 1000)
    assert (np.diff(rates[warmup:]) < 0).all()


def test_without_warm_up_the_first_epoch_has_the_base_rate() -> None:
    rates = optimisers.learning_rates(BASE, 5, 0, 0.001)
    assert rates[0] == pytest.approx(BASE)
    # Half way along the cosine lies the mean of both ends.
    assert rates[2] == pytest.approx(BASE * (1 + 0.001) / 2)


def test_a_training_shorter_than_its_warm_up_only_warms_up() -> None:
    np.testing.assert_allclose(optimisers.learning_rates(BASE, 3, 10, 0.001), BASE * np.array([0.1, 0.2, 0.3]))


def test_the_rate_is_constant_within_an_epoch_and_stays_after_the_last() -> None:
    rates = optimisers.learning_rates(BASE, 4, 1, 0.001)
    rate_at = jax.jit(optimisers.schedule(rates, 5))
    found = np.array([rate_at(step) for step in range(30)])
    expected = np.concatenate([np.repeat(rates, 5), np.full(10, rates[-1])])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_only_biases_of_necks_are_frozen() -> None:
    layer = {"scale": jnp.ones(2), "bias": jnp.zeros(2)}
    params = {"stream": {"neck": layer, "fc_norm": layer, "bias": jnp.zeros(2), "neck_like": layer}}
    kept = {"scale": False, "bias": False}
    expected = {
        "stream": {"neck": {"scale": False, "bias": True}, "fc_norm": kept, "bias": False, "neck_like": kept},
    }
    assert optimisers.frozen(params) == expected


def small_params() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "conv": {"kernel": rng.standard_normal((3, 4)), "bias": rng.standard_normal(4)},
        "neck": {"scale": rng.uniform(0.5, 1.5, 4), "bias": rng.standard_normal(4)},
    }


def gradients(step: int) -> dict[str, Any]:
    rng = np.random.default_rng(step + 1)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), small_params())


def train(steps: int, rates: np.ndarray, weight_decay: float) -> list[dict[str, Any]]:
    optimizer = optimisers.adam(optimisers.schedule(rates, 1), weight_decay)
    params = jax.tree.map(jnp.asarray, small_params())
    state, history = optimizer.init(params), [params]
    for step in range(steps):
        changes, state = optimizer.update(jax.tree.map(jnp.asarray, gradients(step)), state, params)
        params = optax.apply_updates(params, changes)
        history.append(params)
    return history


def test_adam_with_l2_is_pytorchs(x64: None) -> None:
    rates, decay = np.array([0.1, 0.05, 0.01]), 0.2
    found = train(3, rates, decay)
    for module, name in (("conv", "kernel"), ("conv", "bias"), ("neck", "scale")):
        value = small_params()[module][name]
        first, second = np.zeros_like(value), np.zeros_like(value)
        for step in range(3):
            grad = gradients(step)[module][name] + decay * value
            first = 0.9 * first + 0.1 * grad
            second = 0.999 * second + 0.001 * grad**2
            denominator = np.sqrt(second) / np.sqrt(1 - 0.999 ** (step + 1)) + 1e-8
            value = value - rates[step] / (1 - 0.9 ** (step + 1)) * first / denominator
            np.testing.assert_allclose(found[step + 1][module][name], value, rtol=1e-10)


def test_a_necks_bias_never_changes_even_when_it_is_not_zero() -> None:
    history = train(3, np.full(3, 0.1), 0.2)
    start = small_params()
    np.testing.assert_array_equal(history[-1]["neck"]["bias"], start["neck"]["bias"].astype(np.float32))
    for module, name in (("conv", "kernel"), ("conv", "bias"), ("neck", "scale")):
        assert (np.abs(history[1][module][name] - start[module][name]) > 0.09).all()  # Adam's first step is the rate


def test_the_optimiser_keeps_no_moments_for_frozen_parameters() -> None:
    state = optimisers.adam(0.1, 0.0).init(jax.tree.map(jnp.asarray, small_params()))
    sizes = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
    assert sizes == 2 * (3 * 4 + 4 + 4)
