"""The benchmarks by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from benchmarks.races import Race, Settings
from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.errors import InputError

USUAL = ("embedding", "train", "pipeline", "evaluation", "rerank", "checkpoint", "dataset")
NAMES = (*USUAL, "serving", "networks", "methods")  # the last three only when they are named


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the benchmarks to run: those named, each once, or the usual ones.

    Raises:
        InputError: there is no benchmark of a name.
    """
    for name in names:
        if name not in NAMES:
            hint = did_you_mean(name, NAMES) or "correct the name."
            raise InputError(f"no benchmark is called {name!r}; {hint} There are {', '.join(NAMES)}.")
    return tuple(dict.fromkeys(names)) or USUAL


def races(name: str, settings: Settings) -> list[Race]:
    """Returns the races of a benchmark."""
    found: list[Race] = importlib.import_module(f"benchmarks.{name}").races(settings)
    return found
