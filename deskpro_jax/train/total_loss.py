"""The terms of the loss added up, after the steps of parameters that have to move before the others are computed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import LossTerm, StepValues
from deskpro_jax.train.optimisers import LOSS

Terms = dict[str, Array]


def loss_terms(values: StepValues, losses: Sequence[LossTerm]) -> tuple[Array, Terms]:
    """Computes the terms of a loss and adds them up, each with its weight, in their order; leaves out those `first`.

    Args:
        values: outputs, intermediates and batch of a step; `parameters_of` the terms that have some.
        losses: the terms.

    Returns:
        The total, and the terms by name.

    Raises:
        InputError: two terms have one name.
    """
    names = [term.name for term in losses] + ["total"]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"the loss has two terms called {twice!r} (loss.extra may add one): rename one of them.")
    added = [term for term in losses if not term.first]
    terms = {term.name: _compute(term, values) for term in added}
    weights = [term.weight(values.epoch) if callable(term.weight) else term.weight for term in added]
    weighted = [weight * term for weight, term in zip(weights, terms.values(), strict=True)]
    return functools.reduce(jnp.add, weighted), terms


def _compute(term: LossTerm, values: StepValues) -> Array:
    return term.compute(values._replace(parameters=values.parameters_of.get(term.name, {})))


def first_steps(
    values: StepValues,
    losses: Sequence[LossTerm],
    optimizer: optax.GradientTransformation,
    params: Mapping[str, Any],
    opt_state: Any,
) -> tuple[dict[str, Any], Terms, dict[str, Any]]:
    """Takes the step of the parameters whose terms are `first`.

    Args:
        values: of the step, with parameters as they are before it.
        losses: the terms of the loss.
        optimizer: see `train/optimisers.py`: no parameter's step depends on those of others.
        params: all parameters, before the step.
        opt_state: of the optimiser, before the step.

    Returns:
        By term: parameters after the step, values of the terms before it, and gradients.
    """
    first = [term for term in losses if term.first]
    own = {term.name: params[LOSS][term.name] for term in first}
    outputs, middle = jax.lax.stop_gradient((values.outputs, values.intermediates))

    def loss(own: Any) -> tuple[Array, Terms]:
        parameters = {**values.parameters_of, **own}
        constant = values._replace(outputs=outputs, intermediates=middle, parameters_of=parameters)
        terms = {term.name: _compute(term, constant) for term in first}
        return functools.reduce(jnp.add, terms.values()), terms

    gradients, terms = jax.grad(loss, has_aux=True)(own)
    # What the optimiser makes of the others here is not used: the compiler leaves it out.
    others = optax.tree.zeros_like(params)
    every = {**others, LOSS: {**others[LOSS], **gradients}}
    changes, _ = optimizer.update(every, opt_state, params)
    return {name: optax.apply_updates(tree, changes[LOSS][name]) for name, tree in own.items()}, terms, gradients
