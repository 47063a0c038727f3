"""The progress line of long work: steps, loss terms, images/s and time left."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

import rich.console
import rich.progress

_REFRESH_SECONDS = 0.1  # the bar is redrawn at most this often, so that a step costs microseconds
_RATE_SECONDS = 30.0  # the images/s shown are those of about the last half minute
_MEASURED_STEPS, _MEASURED_SECONDS = 4, 1.0  # what an outlook needs at least


def say(*lines: str) -> None:
    """Prints lines where progress lines go."""
    for line in lines:
        _console().print(line, markup=False, highlight=False)


def _console() -> rich.console.Console:
    return rich.console.Console(file=sys.stderr, soft_wrap=True)


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
        outlook: Callable[[int, float], str] | None = None,
    ):
        """Prepares the line; nothing appears before the `with` block is entered.

        Args:
            total: steps of the whole phase.
            description: name of the phase.
            start: steps done by an earlier run; they do not count for speed and time left.
            images_per_step: images of a step over all processes; 0 shows no images/s.
            log_seconds: seconds between two plain lines where the output is not a terminal.
            console: where to print; None is standard error, where log lines go too.
            enabled: False shows nothing: for every process but the first.
            outlook: from the steps that are left and the seconds that one takes to a line that is printed once ("" is
                not), as soon as a few steps are measured.
        """
        self._total, self._description, self._done = total, description, start
        self._images, self._log_seconds, self._enabled = images_per_step, log_seconds, enabled
        self._outlook = outlook
        self._console = console or _console()
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
            terms: name -> Python float; None keeps the last ones. Device arrays would make the host wait.
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
        if self._outlook is not None:
            self._look_ahead(*self._marks[0], now)
        if now - self._shown >= (_REFRESH_SECONDS if self._bar is not None else self._log_seconds):
            self._shown = now
            self._show()

    def _look_ahead(self, since: float, first: int, now: float) -> None:
        steps, seconds = self._done - first, now - since
        if self._outlook is None or steps < _MEASURED_STEPS or seconds < _MEASURED_SECONDS:
            return
        if line := self._outlook(self._total - self._done, seconds / steps):
            self._console.print(f"{self._description}  {line}", markup=False, highlight=False)
        self._outlook = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what the block takes, as an evaluation between two steps, out of speed and time left."""
        begin = time.monotonic()
        try:
            yield
        finally:
            pause = time.monotonic() - begin
            self._marks = deque((at + pause, done) for at, done in self._marks)

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
        percent = 100 * self._done / max(1, self._total)
        line = f"{self._description}  step {self._done}/{self._total} ({percent:.0f}%)  {self._figures()}"
        self._console.print(line.rstrip(), markup=False, highlight=False)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
