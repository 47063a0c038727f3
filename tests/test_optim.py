"""Schedules warm up and end where they should; optimisers are PyTorch's with L2; BNNeck biases never move."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from deskpro_jax import losses
from deskpro_jax.models.contract import Counts, Recipe, StreamSpec
from deskpro_jax.train import optimisers, schedules

BASE = 0.003


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def test_base_rate_grows_with_the_square_root_of_the_batch() -> None:
    assert schedules.base_learning_rate(0.0006, 20) == pytest.approx(0.0006)
    assert schedules.base_learning_rate(0.0006, 80) == pytest.approx(0.0012)
    assert schedules.base_learning_rate(0.0006, 30) == pytest.approx(0.000735, abs=5e-7)


def test_warm_up_is_linear_and_reaches_the_base_rate_in_its_last_epoch() -> None:
    rates = schedules.learning_rates(BASE, 30, 10, 0.001)
    np.testing.assert_allclose(rates[:10], BASE * np.arange(1, 11) / 10)
    assert rates[10] == pytest.approx(BASE)
    assert rates.max() == pytest.approx(BASE)


@pytest.mark.parametrize(("epochs", "warmup"), [(140, 10), (12, 10), (2, 0), (60, 0)])
def test_the_last_epoch_has_the_final_fraction_of_the_base_rate(epochs: int, warmup: int) -> None:
    rates = schedules.learning_rates(BASE, epochs, warmup, 0.001)
    assert len(rates) == epochs
    assert rates[-1] == pytest.approx(BASE / 1000)
    assert (np.diff(rates[warmup:]) < 0).all()


def test_without_warm_up_the_first_epoch_has_the_base_rate() -> None:
    rates = schedules.learning_rates(BASE, 5, 0, 0.001)
    assert rates[0] == pytest.approx(BASE)
    # Half way along the cosine lies the mean of both ends.
    assert rates[2] == pytest.approx(BASE * (1 + 0.001) / 2)


def test_a_training_shorter_than_its_warm_up_only_warms_up() -> None:
    np.testing.assert_allclose(schedules.learning_rates(BASE, 3, 10, 0.001), BASE * np.array([0.1, 0.2, 0.3]))


def test_the_rate_is_constant_within_an_epoch_and_stays_after_the_last() -> None:
    rates = schedules.learning_rates(BASE, 4, 1, 0.001)
    rate_at = jax.jit(schedules.schedule(rates, 5))
    found = np.array([rate_at(step) for step in range(30)])
    expected = np.concatenate([np.repeat(rates, 5), np.full(10, rates[-1])])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_only_biases_of_necks_are_frozen() -> None:
    layer = {"scale": jnp.ones(2), "bias": jnp.zeros(2)}
    params = {"stream": {"neck": layer, "neck_3": layer, "fc_norm": layer, "bias": jnp.zeros(2), "neck_like": layer}}
    kept, neck = {"scale": False, "bias": False}, {"scale": False, "bias": True}
    expected = {
        "stream": {"neck": neck, "neck_3": neck, "fc_norm": kept, "bias": False, "neck_like": kept},
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
    optimizer = optimisers.adam(schedules.schedule(rates, 1), weight_decay)
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


def config(**fields: Any) -> Any:
    train = base.get_config().train
    for name, value in fields.items():
        train[name] = value
    return train


def run(optimizer: Any, steps: int) -> list[dict[str, Any]]:
    params = jax.tree.map(jnp.asarray, small_params())
    state, history = optimizer.init(params), [params]
    for step in range(steps):
        changes, state = optimizer.update(jax.tree.map(jnp.asarray, gradients(step)), state, params)
        params = optax.apply_updates(params, changes)
        history.append(params)
    return history


def test_amsgrad_keeps_the_largest_moment_before_its_correction_as_pytorch_does(x64: None) -> None:
    found, decay, rate = run(optimisers.optimizer("amsgrad", 0.1, 0.2), 6)[-1], 0.2, 0.1
    value = small_params()["conv"]["kernel"]
    first, second, largest = np.zeros_like(value), np.zeros_like(value), np.zeros_like(value)
    for step in range(6):
        grad = gradients(step)["conv"]["kernel"] + decay * value
        first = 0.9 * first + 0.1 * grad
        second = 0.999 * second + 0.001 * grad**2
        largest = np.maximum(largest, second)
        denominator = np.sqrt(largest) / np.sqrt(1 - 0.999 ** (step + 1)) + 1e-8
        value = value - rate / (1 - 0.9 ** (step + 1)) * first / denominator
    np.testing.assert_allclose(found["conv"]["kernel"], value, rtol=1e-10)


def test_sgds_buffer_starts_as_the_first_gradient_and_holds_no_rate(x64: None) -> None:
    rates = np.array([0.1, 0.05, 0.01])
    found = run(optimisers.optimizer("sgd", schedules.schedule(rates, 1), 0.2, momentum=0.9), 3)[-1]
    value, buffer = small_params()["conv"]["kernel"], None
    for step in range(3):
        grad = gradients(step)["conv"]["kernel"] + 0.2 * value
        buffer = grad if buffer is None else 0.9 * buffer + grad
        value = value - rates[step] * buffer
    np.testing.assert_allclose(found["conv"]["kernel"], value, rtol=1e-12)


def test_layers_that_published_weights_start_have_a_rate_of_their_own() -> None:
    recipe = Recipe((), label=lambda path: "pretrained" if path[0] == "conv" else "new")
    train = config(optimizer="sgd", momentum=0.0, weight_decay=0.0, pretrained_rate=0.1)
    after, start = run(optimisers.of_recipe(recipe, 1.0, train), 1)[1], small_params()
    slow = start["conv"]["kernel"] - 0.1 * gradients(0)["conv"]["kernel"]
    fast = start["neck"]["scale"] - gradients(0)["neck"]["scale"]
    np.testing.assert_allclose(after["conv"]["kernel"], slow, rtol=1e-6)
    np.testing.assert_allclose(after["neck"]["scale"], fast, rtol=1e-6)


def test_frozen_epochs_move_classifiers_only_and_the_others_start_as_if_it_were_their_first_step(x64: None) -> None:
    def params() -> dict[str, Any]:
        return {"body": {"conv": small_params()["conv"], "classifier_0": small_params()["conv"]}}

    def grads(step: int) -> dict[str, Any]:
        return {"body": {"conv": gradients(step)["conv"], "classifier_0": gradients(step)["conv"]}}

    rates = np.array([0.4, 0.3, 0.2, 0.1])
    train = config(weight_decay=0.2, freeze_epochs=2)
    optimizer = optimisers.of_recipe(Recipe(()), schedules.schedule(rates, 1), train, steps_per_epoch=1)
    plain = optimisers.adam(schedules.schedule(rates, 1), 0.2)
    values = jax.tree.map(jnp.asarray, params())
    whole = values
    state, other = optimizer.init(values), plain.init(values)
    for step in range(3):
        changes, state = optimizer.update(jax.tree.map(jnp.asarray, grads(step)), state, values)
        values = optax.apply_updates(values, changes)
        changes, other = plain.update(jax.tree.map(jnp.asarray, grads(step)), other, whole)
        whole = optax.apply_updates(whole, changes)
        if step < 2:
            np.testing.assert_array_equal(values["body"]["conv"]["kernel"], params()["body"]["conv"]["kernel"])
    kernel = "kernel"
    np.testing.assert_allclose(
        values["body"]["classifier_0"][kernel], whole["body"]["classifier_0"][kernel], rtol=1e-12
    )
    # Adam's first step is the rate of that epoch in size, against the sign of the gradient.
    start = params()["body"]["conv"][kernel]
    grad = grads(2)["body"]["conv"][kernel] + 0.2 * start
    np.testing.assert_allclose(values["body"]["conv"][kernel], start - 0.2 * np.sign(grad), rtol=1e-5)


def test_a_terms_own_parameters_move_by_its_optimiser_whatever_the_weight() -> None:
    loss = base.get_config().loss
    loss.centre_weight, loss.centre_rate = 0.0005, 0.5
    term = losses.centre_term(loss, StreamSpec("body", "body", ("global",), (0,), 3))
    assert term.parameters is not None
    centres = term.parameters(Counts(4), np.random.default_rng(0))["centres"]
    assert centres.shape == (1, 4, 3)
    params = {"body": {"kernel": jnp.ones(2)}, "loss": {"centre_body": {"centres": jnp.asarray(centres)}}}
    gradient = np.random.default_rng(1).standard_normal(centres.shape).astype(np.float32)
    grads = {"body": {"kernel": jnp.ones(2)}, "loss": {"centre_body": {"centres": 0.0005 * jnp.asarray(gradient)}}}
    optimizer = optimisers.of_recipe(Recipe((term,)), 0.1, config())
    changes, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(changes["loss"]["centre_body"]["centres"], -0.5 * gradient, rtol=1e-5)
    assert np.abs(changes["body"]["kernel"]).max() > 0.09


def test_both_forms_of_the_warm_up_and_the_milestones() -> None:
    train = config(base_lr=2.0, reference_batch=0, warmup_epochs=10, schedule="step", milestones=(40, 70), decay=0.1)
    rates = schedules.epoch_rates(train, 64, 120)
    np.testing.assert_allclose(rates[:11], 2.0 * np.array([*np.arange(1, 11), 10]) / 10)
    np.testing.assert_allclose(rates[[39, 40, 69, 70, 119]], [2.0, 0.2, 0.2, 0.02, 0.02])
    train.warmup_factor = 0.01
    rates = schedules.epoch_rates(train, 64, 120)
    np.testing.assert_allclose(rates[:11], 2.0 * (0.01 + 0.99 * np.arange(11) / 10))


def test_the_cosine_to_zero_has_no_end_before_its_last_epoch() -> None:
    train = config(base_lr=0.0015, reference_batch=0, warmup_epochs=0, schedule="cosine_to_zero")
    rates = schedules.epoch_rates(train, 64, 100)
    np.testing.assert_allclose(rates, 0.0015 * (1 + np.cos(np.pi * np.arange(100) / 100)) / 2)
    assert rates[-1] > 0


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
