"""Which checkpoints stay: the newest two, and the one with the largest metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

_NEWEST = 2  # so that one damaged checkpoint never ends a run


class NewestAndBest:
    """Orbax's preservation policy, and the ranking it rests on."""

    def __init__(self, directory: Path, best_metric: str | None):
        """Ranks the step folders of `directory` by `best_metric`; None ranks nothing."""
        self._directory, self._best_metric = directory, best_metric
        self._scores: dict[int, float | None] = {}

    def note(self, step: int, record: Mapping[str, Any]) -> None:
        """Takes the score of a step from the record about to be saved, or saved before."""
        value = (record.get("metrics") or {}).get(self._best_metric)
        self._scores[step] = value if isinstance(value, (int, float)) and math.isfinite(value) else None

    def forget(self, steps: Iterable[int]) -> None:
        """Drops the scores of steps that are gone."""
        for step in steps:
            self._scores.pop(step, None)

    def ranked(self, steps: Iterable[int]) -> list[int]:
        """Returns those of `steps` with a finite metric, the best first and the newer first among equals."""
        scored = [(score, step) for step in steps if (score := self._score(step)) is not None]
        return [step for _, step in sorted(scored, reverse=True)]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Returns for each checkpoint, oldest first, whether it stays."""
        del context
        steps = [c.step for c in checkpoints]
        kept = {*steps[-_NEWEST:], *self.ranked(steps)[:1]}
        return [s in kept for s in steps]

    def _score(self, step: int) -> float | None:
        if step not in self._scores:
            try:
                self.note(step, ocp.JsonCheckpointHandler().restore(self._directory / str(step) / "data"))
            except Exception:
                self._scores[step] = None  # damaged, which restoring it would report
        return self._scores[step]
