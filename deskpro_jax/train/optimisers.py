"""Learning-rate schedule and the optimiser: Adam with L2 in the gradient, frozen parameters unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import Recipe

REFERENCE_BATCH = 20  # the base rate is given for this batch size
FALLING_EPOCHS = 500  # past the end of the schedule


def base_learning_rate(rate: float, batch: int) -> float:
    """Returns the learning rate for a global batch: `rate` * sqrt(batch / 20)."""
    return rate * math.sqrt(batch / REFERENCE_BATCH)


def learning_rates(
    base: float, epochs: int, warmup_epochs: int, final_fraction: float, schedule_epochs: int = 0
) -> np.ndarray:
    """Computes the learning rate of each epoch: linear warm-up, then a cosine down to a fraction of the base.

    Epochs past the cosine's end have the released code's rates: the cosine's next value, already on its way up again,
    then evenly down from it, by its distance to the final rate in `FALLING_EPOCHS`.

    Args:
        base: highest rate.
        epochs: length of the training, warm-up included.
        warmup_epochs: epoch e of them (from 0) has base * (e + 1) / warmup_epochs.
        final_fraction: fraction of the base rate where the cosine ends.
        schedule_epochs: epochs until the cosine's end, warm-up included; 0 for all of `epochs`.

    Returns:
        Rates [epochs], float64.
    """
    length = schedule_epochs or epochs
    epoch = np.arange(epochs, dtype=np.float64)
    # One epoch past the end is still on the cosine.
    progress = np.clip((epoch - warmup_epochs) / max(length - 1 - warmup_epochs, 1), 0.0, None)
    cosine = 0.5 * (1.0 + np.cos(np.pi * np.minimum(progress, progress[min(length, epochs - 1)])))
    falling = np.where(epoch > length, 1.0 - (epoch - length) / FALLING_EPOCHS, 1.0)
    after = np.maximum(final_fraction + (1.0 - final_fraction) * cosine * falling, 0.0)
    return base * np.where(epoch < warmup_epochs, (epoch + 1) / max(warmup_epochs, 1), after)


def schedule(rates: np.ndarray, steps_per_epoch: int) -> Callable[[Any], Any]:
    """Returns an optax schedule that holds each epoch's rate for `steps_per_epoch` steps, the last one for ever."""
    table = jnp.asarray(rates, jnp.float64 if jax.config.read("jax_enable_x64") else jnp.float32)
    return lambda step: table[jnp.minimum(step // steps_per_epoch, len(rates) - 1)]


def frozen(params: Any) -> Any:
    """Returns a tree of bools: True for parameters that never change, the biases of the BNNecks."""

    def is_frozen(path: tuple[Any, ...], _: Any) -> bool:
        names = [entry.key for entry in path]
        return names[-2:] == ["neck", "bias"]

    return jax.tree_util.tree_map_with_path(is_frozen, params)


def adam(learning_rate: Callable[[Any], Any] | float, weight_decay: float) -> optax.GradientTransformation:
    """Returns Adam (0.9, 0.999, eps 1e-8) with `weight_decay` * parameter added to the gradient, as PyTorch does.

    Frozen parameters get neither gradient nor decay.
    """
    trained = lambda params: jax.tree.map(lambda is_frozen: not is_frozen, frozen(params))  # noqa: E731
    return optax.chain(
        optax.masked(optax.add_decayed_weights(weight_decay), trained),
        optax.masked(optax.scale_by_adam(), trained),
        optax.masked(optax.set_to_zero(), frozen),
        optax.scale_by_learning_rate(learning_rate),
    )


OPTIMIZERS = {"adam": adam}  # name in a recipe -> optimiser from learning rate and weight decay
SCHEDULES = {"cosine": learning_rates}  # name in a recipe -> learning rate of each epoch


def of_recipe(
    recipe: Recipe, learning_rate: Callable[[Any], Any] | float, weight_decay: float
) -> optax.GradientTransformation:
    """Returns the optimiser of a recipe, or one for each label of the parameters where it has several.

    Args:
        recipe: of the phase.
        learning_rate: a number or an optax schedule.
        weight_decay: see `adam`.

    Raises:
        InputError: the recipe names an unknown optimiser.
    """
    if isinstance(recipe.optimizer, str):
        return _named(recipe.optimizer, OPTIMIZERS)(learning_rate, weight_decay)
    label = recipe.label
    if label is None:
        raise InputError("the recipe has several optimisers and no label; expected a function from a parameter's path.")
    by_label = {key: _named(name, OPTIMIZERS)(learning_rate, weight_decay) for key, name in recipe.optimizer.items()}

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: label(tuple(entry.key for entry in path)), params)

    return optax.multi_transform(by_label, labels)


def rates_of_recipe(recipe: Recipe, *arguments: Any) -> np.ndarray:
    """Returns the learning rate of each epoch by the recipe's schedule; `arguments` as of `learning_rates`."""
    return _named(recipe.schedule, SCHEDULES)(*arguments)


def _named(name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    if name not in known:
        raise InputError(f"the recipe names {name!r}; expected one of {', '.join(known)}.")
    return known[name]
