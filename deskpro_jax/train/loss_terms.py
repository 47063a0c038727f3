"""Loss terms: parameters of their own, and the values of several steps, checked and averaged for the metrics."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from clu import metrics as clu_metrics

from deskpro_jax.errors import RunError
from deskpro_jax.models.contract import Counts, LossTerm
from deskpro_jax.train.optimisers import LOSS
from deskpro_jax.train.step import NORMS

StepTerms = tuple[int, dict[str, Any]]  # a step, and its terms by name


def with_own_parameters(
    variables: Mapping[str, Any], losses: Sequence[LossTerm], counts: Counts, seed: int
) -> dict[str, Any]:
    """Returns variables with the initial parameters that terms have for themselves beside those of the module.

    Args:
        variables: of the module.
        losses: the terms.
        counts: numbers of classes.
        seed: of the initial values.
    """
    own = {
        term.name: dict(term.parameters(counts, np.random.default_rng([seed, zlib.crc32(term.name.encode())])))
        for term in losses
        if term.parameters is not None
    }
    return {**variables, "params": {**variables["params"], LOSS: own}} if own else dict(variables)


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
