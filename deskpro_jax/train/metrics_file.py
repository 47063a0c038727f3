"""The metrics of a training phase: JSON lines and TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorboardX
from absl import logging

from deskpro_jax.errors import InputError, RunError
from deskpro_jax.storage.files import sync, write_text

METRICS_FILE = "metrics.jsonl"
_RESERVED = ("step", "epoch", "time")


class MetricWriter:
    """Writes scalars of one training phase to `metrics.jsonl` and to a TensorBoard event file."""

    def __init__(
        self,
        folder: str | Path,
        *,
        resume_step: int | None = None,
        redo: Collection[str] = (),
        enabled: bool = True,
    ):
        """Opens the files of a phase, first dropping what a killed run wrote after its last checkpoint.

        Args:
            folder: of the phase; made when it does not exist.
            resume_step: the step that training goes on from; later lines are dropped and TensorBoard hides later
                events, so that each step appears once. None keeps every line.
            redo: names of scalars that are about to be written again for `resume_step`: its lines with them go too.
            enabled: False writes and changes nothing: for every process but the first.

        Raises:
            RunError: a file cannot be written.
        """
        self._lines: Any = None
        self._events: Any = None
        if not enabled:
            return
        self._folder = Path(folder)
        path = self._folder / METRICS_FILE
        purge = None if resume_step is None else resume_step + 1
        unique = f".{time.time_ns() % 10**9:09d}"  # a file opened in the same second would be overwritten
        with self._explained():
            self._folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _cut(path, math.inf if resume_step is None else resume_step, redo)
            self._lines = path.open("a", encoding="utf-8")
            self._events = tensorboardX.SummaryWriter(str(self._folder), purge_step=purge, filename_suffix=unique)

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def scalars(self, step: int, values: Mapping[str, Any], *, epoch: float | None = None) -> None:
        """Writes one line, and one event per value, at once visible to readers.

        The line is strict JSON: step, epoch (null when not given), time (seconds since 1970), then the values; one
        that is not finite becomes the text "nan", "inf" or "-inf", which `float` reads back.

        Args:
            step: training steps done.
            values: name -> number or scalar array (reading a device array waits for it).
            epoch: epochs done, fractions included.

        Raises:
            InputError: a name is `step`, `epoch` or `time`.
            RunError: a file cannot be written; the writer is closed then.
        """
        if self._lines is None:
            return
        clash = sorted(set(values) & set(_RESERVED))
        if clash:
            raise InputError(f"metric name {clash[0]!r} is a column of {METRICS_FILE}: choose another name")
        numbers = {name: float(value) for name, value in values.items()}
        record: dict[str, Any] = {"step": int(step), "epoch": epoch, "time": round(time.time(), 3)}
        record |= {name: v if math.isfinite(v) else str(v) for name, v in numbers.items()}
        with self._explained():
            self._lines.write(json.dumps(record, allow_nan=False) + "\n")
            self._lines.flush()
            for name, number in numbers.items():
                self._events.add_scalar(name, number, int(step))
            self._events.flush()

    def text(self, step: int, name: str, markdown: str) -> None:
        """Writes a text (a configuration, a results table) only to the event file."""
        if self._events is not None:
            with self._explained():
                self._events.add_text(name, markdown, int(step))
                self._events.flush()

    def sync(self) -> None:
        """Flushes the lines to disk, for a checkpoint that is about to be saved: no power cut loses lines before it."""
        if self._lines is not None:
            with self._explained():
                sync(self._folder / METRICS_FILE)

    def close(self) -> None:
        """Closes both files; later calls write nothing."""
        if self._lines is not None:
            with self._explained():
                self._lines.close()
                self._events.close()
            self._lines = self._events = None

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is buffered fails again, and tensorboardX would wait for its thread, which may have failed as well.
            with contextlib.suppress(OSError):
                if self._lines is not None:
                    self._lines.close()
            self._lines = self._events = None
            raise RunError(
                f"the metrics in {self._folder} could not be written ({error.strerror or error}): free space or"
                " correct permissions, and run again; it goes on from the last checkpoint"
            ) from error


def _cut(path: Path, last_step: float, redo: Collection[str]) -> None:
    kept, dropped, broken = [], 0, 0
    with path.open(encoding="utf-8", errors="replace") as old:
        for line in old:
            try:
                record = json.loads(line)
                keep = line.endswith("\n") and record["step"] <= last_step
                keep = keep and not (record["step"] == last_step and any(name in record for name in redo))
            except (ValueError, TypeError, KeyError):
                keep, broken = False, broken + 1
            dropped += not keep
            if keep:
                kept.append(line)
    if dropped:
        write_text(path, "".join(kept))
        logging.info("%s: dropped %d lines after step %s, %d of them cut short", path, dropped, last_step, broken)
