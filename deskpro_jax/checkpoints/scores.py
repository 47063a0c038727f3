"""The scores of a phase's checkpoints, in its `scores.json`, and which checkpoints stay because of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from deskpro_jax.checkpoints.metadata import saved_record, saved_steps
from deskpro_jax.storage import files

SCORES_FILE = "scores.json"  # beside the folder of checkpoints
_NEWEST = 2  # so that one damaged checkpoint never ends a run

Scores = dict[int, dict[str, float | None]]  # by step, then by name; None where it is not a finite number


def read_scores(checkpoints: Path) -> Scores:
    """Returns the scores of a phase by step; damaged ones are logged and left out.

    Args:
        checkpoints: the phase's folder of checkpoints. Versions before 0.2 kept the scores of a step in its own folder:
            those are read, too.
    """
    path, scores = checkpoints.parent / SCORES_FILE, {}
    try:
        entries: dict[Any, Any] = files.read_json(path) or {}
        for step, entry in entries.items():
            if entry["sha256"] == _digest(entry["scores"]):
                scores[int(step)] = entry["scores"]
            else:
                logging.warning("%s is damaged: the scores of step %s are not compared with others", path, step)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        logging.warning("%s is damaged, its scores are not used: %s: %s", path, type(error).__name__, error)
        return {}
    for step in saved_steps(checkpoints):
        if str(step) not in entries:
            record = saved_record(checkpoints / str(step))
            if record is None:
                logging.warning("the scores of checkpoint %s, if any, are not readable", checkpoints / str(step))
            elif record.get("metrics"):
                scores[step] = record["metrics"]
    return scores


def write_scores(checkpoints: Path, scores: Scores) -> None:
    """Writes the scores of a phase; a kill leaves the old ones or the new ones."""
    entries = {str(step): {"scores": scores[step], "sha256": _digest(scores[step])} for step in sorted(scores)}
    files.write_json(checkpoints.parent / SCORES_FILE, entries)


def ranked(scores: Scores, steps: Iterable[int], metric: str | None) -> list[int]:
    """Returns those of `steps` with a finite score of the name `metric`, the best first, of equal ones the newer."""
    scored = [(score, step) for step in steps if _is_finite(score := scores.get(step, {}).get(metric or ""))]
    return [step for _, step in sorted(scored, reverse=True)]


def kept(scores: Scores, steps: Sequence[int], metrics: Iterable[str]) -> set[int]:
    """Returns which of `steps`, in ascending order, stay: the newest two, and the best by each of `metrics`."""
    return {*steps[-_NEWEST:], *(step for metric in metrics for step in ranked(scores, steps, metric)[:1])}


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _digest(scores: Mapping[str, float | None]) -> str:
    return hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()
