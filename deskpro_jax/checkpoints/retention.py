"""Which checkpoints stay: the newest two, and the one with the largest value of each metric."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from absl import logging

from deskpro_jax.storage import checksums

_NEWEST = 2  # so that one damaged checkpoint never ends a run


class NewestAndBest:
    """Orbax's preservation policy, and the ranking it rests on."""

    def __init__(self, directory: Path, metrics: Collection[str]):
        """Ranks the step folders of `directory` by each of `metrics`."""
        self._directory, self._metrics = directory, tuple(metrics)
        self._scores: dict[int, dict[str, float]] = {}

    def note(self, step: int, record: Mapping[str, Any]) -> None:
        """Takes the scores of a step from the record about to be saved, or saved before."""
        found = record.get("metrics") or {}
        self._scores[step] = {name: found[name] for name in self._metrics if _is_score(found.get(name))}

    def forget(self, steps: Iterable[int]) -> None:
        """Drops the scores of steps that are gone."""
        for step in steps:
            self._scores.pop(step, None)

    def ranked(self, steps: Iterable[int], metric: str | None) -> list[int]:
        """Returns those of `steps` with a finite `metric`, the best first and the newer first among equals."""
        scored = [(scores[metric], step) for step in steps if metric in (scores := self._read(step))]
        return [step for _, step in sorted(scored, reverse=True)]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Returns for each checkpoint, oldest first, whether it stays."""
        del context
        steps = [c.step for c in checkpoints]
        kept = set(steps[-_NEWEST:])
        for metric in self._metrics:
            kept.update(self.ranked(steps, metric)[:1])
        return [s in kept for s in steps]

    def _read(self, step: int) -> dict[str, float]:
        if step not in self._scores:
            folder = self._directory / str(step)
            damage = checksums.find_damage(folder, lambda name: name.startswith("data/"))
            try:
                self.note(step, {} if damage else ocp.JsonCheckpointHandler().restore(folder / "data"))
            except Exception as error:
                damage = f"{type(error).__name__}: {error}"
                self._scores[step] = {}
            if damage:
                logging.warning("the scores of checkpoint %s are not compared with others: %s", folder, damage)
        return self._scores[step]


def _is_score(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
