"""Script of test_run.py and test_sharded.py: the command line, which signals itself after a step of a phase.

Arguments: SIGNAL PHASE STEP, then those of deskpro_jax.main.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any
from unittest import mock

from absl import app

from deskpro_jax.cli import train
from deskpro_jax.runtime import progress
from deskpro_jax.train import loop


def run(name: str, phase: str, at: int, arguments: list[str]) -> None:
    """Runs the command line with `arguments`, and sends the signal once step `at` of `phase` is done."""

    class Interrupting(progress.Progress):
        def __init__(self, total: int, description: str, **options: Any):
            super().__init__(total, description, **options)
            self._left = at - options.get("start", 0) if description == phase else -1

        def advance(self, terms: Mapping[str, float] | None = None, steps: int = 1) -> None:
            super().advance(terms, steps)
            self._left -= steps
            if self._left == 0:
                os.kill(os.getpid(), signal.Signals[name])

    with mock.patch.object(loop, "Progress", Interrupting):
        app.run(train.main, ["main", *arguments], flags_parser=train.parse_flags)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
