"""What a run tells while it runs: metrics as JSON lines and TensorBoard events, and one progress line."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import rich.console
import rich.progress
import tensorboardX
from absl import logging

from deskpro_jax.errors import InputError, RunError

METRICS_FILE = "metrics.jsonl"
_RESERVED = ("step", "epoch", "time")
_REFRESH_SECONDS = 0.1  # the bar is redrawn at most this often, so that a step costs microseconds
_RATE_SECONDS = 30.0  # the images/s shown are those of about the last half minute


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
          folder: where both files are; made when it is not there.
          resume_step: the step training goes on from; later lines are dropped and TensorBoard hides later events, so
            that each step appears once. None keeps every line.
          redo: names of scalars that are about to be written again for `resume_step`: its lines with them go too.
          enabled: False writes and changes nothing: pass it in every process but the first.

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
        """Writes one line and one event a value, at once visible to readers.

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
            raise InputError(f"metric name {clash[0]!r} is a column of {METRICS_FILE} already: choose another name")
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
        """Writes a text (a configuration, a results table) to the event file alone."""
        if self._events is not None:
            with self._explained():
                self._events.add_text(name, markdown, int(step))
                self._events.flush()

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
                f"the metrics in {self._folder} could not be written ({error.strerror or error}): free space or mend"
                " permissions and run again; it goes on from the last checkpoint"
            ) from error


def _cut(path: Path, last_step: float, redo: Collection[str]) -> None:
    # Written beside and renamed, so that a kill in here loses nothing.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    dropped = broken = 0
    with path.open(encoding="utf-8", errors="replace") as old, temporary.open("w", encoding="utf-8") as new:
        for line in old:
            try:
                record = json.loads(line)
                keep = line.endswith("\n") and record["step"] <= last_step
                keep = keep and not (record["step"] == last_step and any(name in record for name in redo))
            except (ValueError, TypeError, KeyError):
                keep, broken = False, broken + 1
            dropped += not keep
            if keep:
                new.write(line)
        new.flush()
        os.fsync(new.fileno())
    if dropped:
        temporary.replace(path)
        logging.info("%s: dropped %d lines after step %s, %d of them cut short", path, dropped, last_step, broken)
    else:
        temporary.unlink()


class Progress:
    """One line that shows phase, steps, loss terms, images/s and time left; a bar on a terminal, else plain lines."""

    def __init__(
        self,
        total: int,
        description: str,
        *,
        start: int = 0,
        images_per_step: int = 0,
        log_seconds: float = 30.0,
        console: rich.console.Console | None = None,
        enabled: bool = True,
    ):
        """Prepares the line; nothing appears before the `with` block is entered.

        Args:
          total: steps of the whole phase.
          description: the phase.
          start: steps done before, by an earlier run; they do not count for speed and time left.
          images_per_step: images of a step over all processes; 0 shows no images/s.
          log_seconds: time between two plain lines where the output is no terminal.
          console: where to print; None is standard error, which is also where log lines go.
          enabled: False shows nothing: pass it in every process but the first.
        """
        self._total, self._description, self._done = total, description, start
        self._images, self._log_seconds, self._enabled = images_per_step, log_seconds, enabled
        self._console = console or rich.console.Console(file=sys.stderr, soft_wrap=True)
        self._terms: dict[str, float] = {}
        self._marks: deque[tuple[float, int]] = deque()
        self._shown = -math.inf
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> Progress:
        self._shown = time.monotonic()
        if self._enabled and self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(bar_width=24),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[figures]}"),
                console=self._console,
                refresh_per_second=4,
            )
            self._bar.add_task(self._description, total=self._total, completed=self._done, figures="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def advance(self, terms: Mapping[str, float] | None = None, steps: int = 1) -> None:
        """Counts steps, and takes loss terms when the host has them.

        Args:
          terms: name -> Python float; None leaves those of before. Device arrays would make the host wait.
          steps: how many steps have been done since the last call.
        """
        self._done += steps
        if not self._enabled:
            return
        if terms is not None:
            self._terms = dict(terms)
        now = time.monotonic()
        # The first step compiles: counting from its end keeps that out of the speed.
        if not self._marks or now - self._marks[-1][0] >= _RATE_SECONDS / 30:
            self._marks.append((now, self._done))
            while now - self._marks[0][0] > _RATE_SECONDS and len(self._marks) > 2:
                self._marks.popleft()
        if now - self._shown >= (_REFRESH_SECONDS if self._bar is not None else self._log_seconds):
            self._shown = now
            self._show()

    def _figures(self) -> str:
        parts = [f"{name} {value:.4g}" for name, value in self._terms.items()]
        since, first = self._marks[0] if self._marks else (0.0, self._done)
        elapsed = time.monotonic() - since
        if self._done > first and elapsed > 0:
            rate = (self._done - first) / elapsed
            if self._images:
                parts.append(f"{rate * self._images:.3g} images/s")
            parts.append(f"{_duration((self._total - self._done) / rate)} left")
        return "  ".join(parts)

    def _show(self) -> None:
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, figures=self._figures())
            return
        share = 100 * self._done / max(1, self._total)
        line = f"{self._description}  step {self._done}/{self._total} ({share:.0f}%)  {self._figures()}"
        self._console.print(line.rstrip(), markup=False, highlight=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
