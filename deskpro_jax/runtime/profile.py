"""A profile of a few steps, written with jax.profiler for TensorBoard, XProf or Perfetto."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from absl import logging


class StepProfile:
    """Records the steps of a phase from the first to the last of a range, and writes them to a folder.

    As a context manager it also ends a recording that an error or a signal cuts short.
    """

    def __init__(self, folder: Path, steps: Sequence[int], *, enabled: bool = True):
        """Prepares a profile.

        Args:
            folder: gets `plugins/profile/<time>/` with the profile; made when there is something to write.
            steps: first and last step, counted from 1; () for no profile.
            enabled: False records nothing: for every process but the first.
        """
        self._folder, self._steps = folder, tuple(steps) if enabled else ()
        self._recording = False

    def __enter__(self) -> StepProfile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def before(self, step: int) -> None:
        """Starts recording if `step`, about to be taken, is in the range."""
        if self._steps and not self._recording and self._steps[0] <= step <= self._steps[1]:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._recording = True

    def after(self, step: int, result: Any) -> None:
        """Stops recording if `step` was the last of the range, once its result is computed."""
        if self._recording and step >= self._steps[1]:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        if self._recording:
            self._recording, self._steps = False, ()
            jax.profiler.stop_trace()
            logging.info("wrote a profile to %s", self._folder)
