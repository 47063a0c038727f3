"""A phase of training: what it trains, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import ml_collections
import numpy as np
from jax.sharding import Mesh

from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.models.contract import Recipe, TrainingImages
from deskpro_jax.runtime.signals import SignalGuard
from deskpro_jax.runtime.time_left import Outlook
from deskpro_jax.train.loss_terms import StepTerms
from deskpro_jax.train.step import TrainState

Evaluate = Callable[[Any], Mapping[str, float]]  # variables -> scores by name


@dataclass(frozen=True)
class PhaseSetup:
    """What one phase trains, and on what."""

    name: str
    module: nn.Module
    recipe: Recipe
    epochs: int
    schedule_epochs: int  # until the end of the schedule; 0 for all of `epochs`
    fields: tuple[str, ...]  # images to decode
    split: ReIDSplit
    teacher: nn.Module | None = None
    teacher_variables: Any = None
    pretrained: Callable[[Any], Any] | None = None  # random variables -> initial ones, some of them from a file
    images: Callable[[Any], TrainingImages] | None = None  # of variables, where there is work between epochs
    outlook: Outlook = field(default_factory=Outlook)  # how long the run still takes


class ResumeInfo(NamedTuple):
    """What a checkpoint holds beside the state: whether it is scored, loss terms not yet written, images skipped."""

    scored: bool = False
    unwritten: tuple[StepTerms, ...] = ()
    skipped: int = 0


@dataclass
class Training:
    """A phase under way.

    Attributes:
        optimizer: of the phase.
        rates: learning rate of each epoch.
        epoch_steps: steps of an epoch.
        state: after `step` steps.
        resumed: of the checkpoint that this process goes on from.
        pending: loss terms of the last steps, whose line in the metrics is not written yet.
        skipped: reads of unreadable images so far, counted at ends of epochs and when the run stops.
    """

    phase: PhaseSetup
    config: ml_collections.ConfigDict
    mesh: Mesh
    guard: SignalGuard
    evaluate: Evaluate | None
    store: CheckpointStore
    optimizer: Any
    rates: np.ndarray
    epoch_steps: int
    state: TrainState
    step: int
    resumed: ResumeInfo = field(default_factory=ResumeInfo)
    pending: list[StepTerms] = field(default_factory=list)
    skipped: int = 0

    @property
    def total(self) -> int:
        """Steps of the whole phase."""
        return self.epoch_steps * self.phase.epochs

    @property
    def frozen_steps(self) -> int:
        """Steps at the beginning in which only the classifiers train."""
        return int(self.config.train.freeze_epochs) * self.epoch_steps

    @property
    def epoch_ends(self) -> bool:
        """Whether the last step was the last of an epoch."""
        return self.step > 0 and self.step % self.epoch_steps == 0

    def is_due(self, every: int) -> bool:
        """Returns whether something that is done every so many epochs, and after the last one, is due now."""
        epoch = self.step // self.epoch_steps
        return self.epoch_ends and (self.step == self.total or (every > 0 and epoch % every == 0))

    @property
    def score_due(self) -> bool:
        """Whether the state is to be evaluated."""
        return self.evaluate is not None and self.is_due(self.config.eval.every)
