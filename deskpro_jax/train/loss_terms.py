"""Loss terms of several steps: fetched from the device together, checked, and averaged for a line of the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from clu import metrics as clu_metrics

from deskpro_jax.errors import RunError
from deskpro_jax.train.step import NORMS

StepTerms = tuple[int, dict[str, Any]]  # a step, and its terms by name


def fetch(rows: Sequence[StepTerms], phase: str, last_checkpoint: int | None) -> list[tuple[int, dict[str, float]]]:
    """Fetches the terms of several steps, as floats that hold float32 values.

    Args:
        rows: steps with their terms, scalar arrays.
        phase: name of the phase, for the error.
        last_checkpoint: step of the latest checkpoint, for the error.

    Raises:
        RunError: a loss term is not finite.
    """
    fetched = jax.device_get([terms for _, terms in rows])
    steps = [step for step, _ in rows]
    for step, terms in zip(steps, fetched, strict=True):
        infinite = [name for name, value in terms.items() if name not in NORMS and not np.isfinite(value)]
        if infinite:
            name = min(infinite, key="total".__eq__)  # the sum of the others only where none of them is to blame
            saved = "none yet" if last_checkpoint is None else f"step {last_checkpoint}"
            raise RunError(
                f"the loss term {name} of the {phase} phase is {terms[name]} at step {step}. Last good checkpoint: "
                f"{saved}. Lower train.base_lr, lengthen train.warmup_epochs, or use model.dtype=float32, and run "
                "again."
            )
    return [
        (step, {name: float(value) for name, value in terms.items()})
        for step, terms in zip(steps, fetched, strict=True)
    ]


def means(rows: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Returns the mean of each term over several steps."""
    names = rows[0][1]
    return {
        name: float(
            clu_metrics.Average.from_model_output(np.asarray([terms[name] for _, terms in rows], np.float32)).compute()
        )
        for name in names
    }
