"""Optimisers with PyTorch's numerics: L2 in the gradient, several by label of the parameters, frozen parameters."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import PRETRAINED, Optimizer, Recipe
from deskpro_jax.runtime.sharding import is_classifier

Rate = Callable[[Any], Any] | float
LOSS = "loss"  # key among the parameters of those that terms of the loss have for themselves
_OTHER = "other"


class AmsgradState(NamedTuple):
    """Moments of `scale_by_amsgrad`: `largest` is the largest second moment so far."""

    count: Any
    mean: Any
    square: Any
    largest: Any


def scale_by_amsgrad(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Returns AMSGrad as PyTorch computes it.

    The largest second moment is kept as it is, and divided by the present step's bias correction; optax's keeps the
    largest of the corrected ones, which is that of the first steps. Reference: Reddi et al., ICLR 2018.

    Args:
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the denominator.
    """

    def init(params: Any) -> AmsgradState:
        mean, square, largest = (optax.tree.zeros_like(params) for _ in range(3))
        return AmsgradState(jnp.zeros((), jnp.int32), mean, square, largest)

    def update(grads: Any, state: AmsgradState, params: Any = None) -> tuple[Any, AmsgradState]:
        count = state.count + 1
        mean = optax.tree.update_moment(grads, state.mean, b1, 1)
        square = optax.tree.update_moment(grads, state.square, b2, 2)
        largest = jax.tree.map(jnp.maximum, state.largest, square)
        means, squares = optax.tree.bias_correction(mean, b1, count), optax.tree.bias_correction(largest, b2, count)
        changes = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), means, squares)
        return changes, AmsgradState(count, mean, square, largest)

    return optax.GradientTransformation(init, update)


def _directions(name: str, momentum: float) -> optax.GradientTransformation:
    return {
        "adam": optax.scale_by_adam,
        "amsgrad": scale_by_amsgrad,
        "sgd": lambda: optax.trace(momentum),  # starts as the first gradient; the rate stays outside, as in PyTorch
    }[name]()


OPTIMIZERS = ("adam", "amsgrad", "sgd")  # values of train.optimizer


def frozen(params: Any) -> Any:
    """Returns a tree of bools: True for parameters that never change, the biases of the BNNecks (`neck`, `neck_0`)."""

    def is_frozen(path: tuple[Any, ...], _: Any) -> bool:
        names = [str(entry.key) for entry in path[-2:]]
        return len(names) == 2 and names[1] == "bias" and re.fullmatch(r"neck(_\d+)?", names[0]) is not None

    return jax.tree_util.tree_map_with_path(is_frozen, params)


def optimizer(
    name: str,
    learning_rate: Rate,
    weight_decay: float,
    *,
    momentum: float = 0.9,
    freeze_steps: int = 0,
    start_step: int = 0,
) -> optax.GradientTransformation:
    """Returns an optimiser with `weight_decay` * parameter added to the gradient, as PyTorch does.

    Frozen parameters get neither gradient nor decay.

    Args:
        name: "adam" (0.9, 0.999, eps 1e-8), "amsgrad" (the same) or "sgd".
        learning_rate: a number or an optax schedule.
        weight_decay: L2.
        momentum: of "sgd".
        freeze_steps: steps at the beginning in which only classifiers are updated, and the moments of everything else
            wait for the first gradient; the schedule runs on.
        start_step: first step in which anything is updated; the schedule runs on until then as well.
    """
    trained = lambda params: jax.tree.map(lambda is_frozen: not is_frozen, frozen(params))  # noqa: E731
    direction: tuple[optax.GradientTransformation, ...] = (
        optax.masked(optax.add_decayed_weights(weight_decay), trained),
        optax.masked(_directions(name, momentum), trained),
        optax.masked(optax.set_to_zero(), frozen),
    )
    if freeze_steps:
        open_, later = (_from_step(step, direction) for step in (start_step, max(start_step, freeze_steps)))
        direction = (optax.multi_transform({"open": open_, "later": later}, _open_or_later),)
    elif start_step:
        direction = (_from_step(start_step, direction),)
    return optax.chain(*direction, optax.scale_by_learning_rate(learning_rate))


def _from_step(first: int, parts: tuple[optax.GradientTransformation, ...]) -> optax.GradientTransformation:
    """Returns parts of an optimiser that change nothing, their own moments included, before the step `first`."""
    chained = optax.chain(*parts)
    return optax.conditionally_mask(chained, lambda step: step >= first) if first else chained


def anew(optimizer: optax.GradientTransformation, params: Any, state: Any) -> Any:
    """Returns the state of an optimiser that starts anew in the middle of its schedule: moments at zero.

    Args:
        optimizer: the optimiser.
        params: whose update comes next.
        state: before; its counts of steps, by which schedules go, are kept.
    """
    moments = (optax.ScaleByAdamState, optax.TraceState, AmsgradState)
    is_moment = lambda part: isinstance(part, moments)  # noqa: E731
    fresh, treedef = jax.tree.flatten(optimizer.init(params), is_leaf=is_moment)
    kept = jax.tree.leaves(state, is_leaf=is_moment)
    return jax.tree.unflatten(treedef, [new if is_moment(new) else old for new, old in zip(fresh, kept, strict=True)])


def adam(learning_rate: Rate, weight_decay: float) -> optax.GradientTransformation:
    """Returns Adam, see `optimizer`."""
    return optimizer("adam", learning_rate, weight_decay)


def of_recipe(
    recipe: Recipe, learning_rate: Rate, train: ml_collections.ConfigDict, steps_per_epoch: int = 1
) -> optax.GradientTransformation:
    """Returns the optimiser of a recipe: one for each label of the parameters where it has several.

    Args:
        recipe: of the phase.
        learning_rate: a number or an optax schedule.
        train: `config.train`: what the recipe leaves open, `pretrained_rate` and `freeze_epochs`.
        steps_per_epoch: steps of an epoch.

    Raises:
        InputError: the recipe names an unknown optimiser, or has several and no label.
    """
    freeze_steps = train.freeze_epochs * steps_per_epoch
    own = {f"{LOSS}.{term.name}": term.optimizer for term in recipe.losses if term.parameters is not None}
    if isinstance(recipe.optimizer, str):
        default = Optimizer(recipe.optimizer)
        if recipe.label is None and not own:
            return _build(default, learning_rate, train, freeze_steps)
        several = {_OTHER: default, PRETRAINED: dataclasses.replace(default, rate=train.pretrained_rate)}
    else:
        several = {
            name: one if isinstance(one, Optimizer) else Optimizer(one) for name, one in recipe.optimizer.items()
        }
        if recipe.label is None:
            raise InputError(
                "the recipe has several optimisers and no label; expected a function from a parameter's path."
            )
    by_label = {
        name: _build(one, learning_rate, train, freeze_steps, one.start_epoch * steps_per_epoch)
        for name, one in (several | own).items()
    }
    return optax.multi_transform(by_label, functools.partial(_labels, recipe))


def _labels(recipe: Recipe, params: Any) -> Any:
    """Returns the label of every parameter."""

    def label(path: tuple[Any, ...], _: Any) -> str:
        names = tuple(str(entry.key) for entry in path)
        if names[0] == LOSS:
            return f"{LOSS}.{names[1]}"
        given = _OTHER if recipe.label is None else recipe.label(names)
        if isinstance(recipe.optimizer, str):
            return given if given == PRETRAINED else _OTHER
        if given not in recipe.optimizer:
            raise InputError(f"the recipe labels {'/'.join(names)} {given!r}, and has no optimiser of this label.")
        return given

    return jax.tree_util.tree_map_with_path(label, params)


def _build(
    one: Optimizer, learning_rate: Rate, train: ml_collections.ConfigDict, freeze_steps: int, start_step: int = 0
) -> optax.GradientTransformation:
    name = one.name or train.optimizer
    if name not in OPTIMIZERS:
        raise InputError(f"the recipe names {name!r}; expected one of {', '.join(OPTIMIZERS)}.")
    rate = learning_rate if one.constant_rate is None else one.constant_rate
    if one.rate != 1:
        rate = _times(one.rate, rate)
    decay = train.weight_decay if one.weight_decay is None else one.weight_decay
    momentum = train.momentum if one.momentum is None else one.momentum
    built = optimizer(name, rate, decay, momentum=momentum, freeze_steps=freeze_steps, start_step=start_step)
    return built if one.gradient_scale == 1 else optax.chain(optax.scale(one.gradient_scale), built)


def _times(factor: float, rate: Rate) -> Rate:
    return (lambda step: factor * rate(step)) if callable(rate) else factor * rate


def _open_or_later(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: "open" if is_classifier(path) else "later", params)
