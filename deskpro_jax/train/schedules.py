"""Learning-rate schedules: the rate of each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deskpro_jax.errors import InputError

SCHEDULES = ("cosine", "cosine_to_zero", "step")  # values of train.schedule
FALLING_EPOCHS = 500  # past the end of the cosine


def base_learning_rate(rate: float, batch: int, reference_batch: int = 20) -> float:
    """Returns the learning rate for a global batch: `rate` * sqrt(batch / reference_batch), or `rate` for 0."""
    return rate * math.sqrt(batch / reference_batch) if reference_batch else rate


def warm_up(epochs: int, warmup_epochs: int, factor: float = 0.0) -> np.ndarray:
    """Returns the fraction of the rate that each epoch has by the warm-up, 1 after it.

    Args:
        epochs: length of the training.
        warmup_epochs: length of the warm-up.
        factor: 0: epoch e (from 0) has (e + 1) / warmup_epochs; f > 0: f + (1 - f) e / warmup_epochs.

    Returns:
        Fractions [epochs], float64.
    """
    epoch, length = np.arange(epochs, dtype=np.float64), max(warmup_epochs, 1)
    rising = factor + (1.0 - factor) * epoch / length if factor else (epoch + 1) / length
    return np.where(epoch < warmup_epochs, rising, 1.0)


def learning_rates(
    base: float,
    epochs: int,
    warmup_epochs: int,
    final_fraction: float,
    schedule_epochs: int = 0,
    warmup_factor: float = 0.0,
) -> np.ndarray:
    """Computes the learning rate of each epoch: warm-up, then a cosine down to a fraction of the base.

    Epochs past the cosine's end have the released code's rates: the cosine's next value, already on its way up again,
    then evenly down from it, by its distance to the final rate in `FALLING_EPOCHS`.

    Args:
        base: highest rate.
        epochs: length of the training, warm-up included.
        warmup_epochs: length of the warm-up.
        final_fraction: fraction of the base rate where the cosine ends.
        schedule_epochs: epochs until the cosine's end, warm-up included; 0 for all of `epochs`.
        warmup_factor: see `warm_up`.

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
    return base * np.where(epoch < warmup_epochs, warm_up(epochs, warmup_epochs, warmup_factor), after)


def cosine_to_zero(epochs: int, schedule_epochs: int = 0) -> np.ndarray:
    """Returns (1 + cos(pi e / epochs)) / 2 for epoch e, 0 past `schedule_epochs` where it is given."""
    progress = np.arange(epochs, dtype=np.float64) / (schedule_epochs or epochs)
    return 0.5 * (1.0 + np.cos(np.pi * np.minimum(progress, 1.0)))


def steps_down(epochs: int, milestones: Sequence[int], decay: float) -> np.ndarray:
    """Returns `decay` to the number of milestones that each epoch (from 0) has reached."""
    passed = np.searchsorted(np.sort(np.asarray(milestones, np.int64)), np.arange(epochs), side="right")
    return np.asarray(float(decay) ** passed, np.float64)


def epoch_rates(
    train: ml_collections.ConfigDict, batch: int, epochs: int, schedule_epochs: int = 0, name: str = ""
) -> np.ndarray:
    """Returns the learning rate of each epoch.

    Args:
        train: `config.train`.
        batch: images of a global batch.
        epochs: length of the training, warm-up included.
        schedule_epochs: epochs until the schedule's end; 0 for all of `epochs`.
        name: of the schedule in a recipe, "" for `train.schedule`.

    Returns:
        Rates [epochs], float64.

    Raises:
        InputError: there is no such schedule.
    """
    name = name or train.schedule
    if name not in SCHEDULES:
        raise InputError(f"the recipe names the schedule {name!r}; expected one of {', '.join(SCHEDULES)}.")
    base = base_learning_rate(train.base_lr, batch, train.reference_batch)
    if name == "cosine":
        numbers = train.warmup_epochs, train.final_fraction, schedule_epochs, train.warmup_factor
        return learning_rates(base, epochs, *numbers)
    step = name == "step"
    fall = steps_down(epochs, train.milestones, train.decay) if step else cosine_to_zero(epochs, schedule_epochs)
    return base * warm_up(epochs, train.warmup_epochs, train.warmup_factor) * fall


def schedule(rates: np.ndarray, steps_per_epoch: int) -> Callable[[Any], Any]:
    """Returns an optax schedule that holds each epoch's rate for `steps_per_epoch` steps, the last one for ever."""
    table = jnp.asarray(rates, jnp.float64 if jax.config.read("jax_enable_x64") else jnp.float32)
    return lambda step: table[jnp.minimum(step // steps_per_epoch, len(rates) - 1)]
