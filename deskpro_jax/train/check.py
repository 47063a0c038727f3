"""Checks the fields of a configuration that say how networks are trained: `train.*`, `teacher.*`, `init.*`."""

from __future__ import annotations

import re

import ml_collections

from deskpro_jax.config import expect
from deskpro_jax.errors import InputError
from deskpro_jax.models.layers import DEPTHWISE_FORMS
from deskpro_jax.models.remat import REMATS
from deskpro_jax.train import teacher
from deskpro_jax.train.optimisers import OPTIMIZERS
from deskpro_jax.train.schedules import SCHEDULES
from deskpro_jax.train.step import TEACHER_STATISTICS
from deskpro_jax.weights.pretrained import find_weights

_WEIGHTS = ("teacher.checkpoint", "init.body", "init.face", "init.teacher")


def check(config: ml_collections.ConfigDict) -> None:
    """Checks each field of `train.*`, `teacher.*` and `init.*`.

    Raises:
        InputError: a field has a value that cannot be used; the message names it.
    """
    expect.integer(config, "train.epochs", least=0)
    expect.integer(config, "train.schedule_epochs", least=0)
    expect.choice(config, "train.optimizer", OPTIMIZERS)
    expect.number(config, "train.momentum", least=0, most=1)
    expect.number(config, "train.base_lr", least=0)
    expect.integer(config, "train.reference_batch", least=0)
    expect.integer(config, "train.warmup_epochs", least=0)
    expect.number(config, "train.warmup_factor", least=0, most=1)
    expect.choice(config, "train.schedule", SCHEDULES)
    expect.number(config, "train.final_fraction", least=0, most=1)
    _check_milestones(config)
    expect.number(config, "train.decay", least=0, most=1)
    expect.number(config, "train.weight_decay", least=0)
    expect.number(config, "train.pretrained_rate", least=0)
    expect.integer(config, "train.freeze_epochs", least=0)
    expect.integer(config, "train.log_every", least=1)
    _check_profile_steps(config)
    expect.choice(config, "train.remat", REMATS)
    expect.choice(config, "train.depthwise", DEPTHWISE_FORMS)
    expect.boolean(config, "teacher.train")
    expect.choice(config, "teacher.statistics", TEACHER_STATISTICS)
    expect.integer(config, "teacher.epochs", least=0)
    for name in _WEIGHTS:
        expect.text(config, name)
    for pattern in expect.texts(config, "init.dont_load"):
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"init.dont_load has {pattern!r}, which is not a regular expression: {error}.") from error


def _check_milestones(config: ml_collections.ConfigDict) -> None:
    epochs = expect.read(config, "train.milestones")
    if not isinstance(epochs, (tuple, list)) or not all(type(epoch) is int and epoch >= 0 for epoch in epochs):
        raise InputError(
            f"train.milestones is {epochs!r}; it must be a sequence of epochs, e.g. (40, 70), or () for none."
        )


def _check_profile_steps(config: ml_collections.ConfigDict) -> None:
    steps = expect.read(config, "train.profile_steps")
    integers = isinstance(steps, (tuple, list)) and all(type(step) is int for step in steps)
    if not integers or (len(steps) and not (len(steps) == 2 and 1 <= steps[0] <= steps[1])):
        raise InputError(
            f"train.profile_steps is {steps!r}; it must be the first and the last step to profile, e.g. (100, 103), or"
            " () for none."
        )


def check_training(config: ml_collections.ConfigDict) -> None:
    """Checks what training needs and evaluation does not: a teacher, weights, identities to choose a checkpoint by.

    Args:
        config: whose fields have been checked one by one.

    Raises:
        InputError: fields do not go together; the message names them.
    """
    teacher.check(config)
    for name in _WEIGHTS:
        group, field = name.split(".")
        try:
            find_weights(config[group][field])
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    if config.eval.report == "validation" and config.data.validation_identities < 1:
        raise InputError(
            "eval.report is 'validation', but data.validation_identities is "
            f"{config.data.validation_identities}: set it to the number of identities to hold out."
        )
