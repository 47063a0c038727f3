"""Signals that end a run: noticed between two steps, so that the state is saved first."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from absl import logging

from deskpro_jax.processes import agree

__all__ = ["SignalGuard", "agree"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class SignalGuard:
    """While entered, SIGTERM and the first SIGINT (Ctrl-C) set `requested` instead of ending the process.

    The second SIGINT raises KeyboardInterrupt. The handlers of before come back on exit. Python delivers signals to
    the main thread alone: entered in another thread, the guard changes nothing and never fires.
    """

    def __init__(self) -> None:
        self._requested: str | None = None
        self._since = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> str | None:
        """Name of the first signal received, as "SIGTERM", or None."""
        return self._requested

    @property
    def elapsed(self) -> float:
        """Seconds since that signal; 0.0 when there was none."""
        return time.monotonic() - self._since if self._requested else 0.0

    def __enter__(self) -> SignalGuard:
        if threading.current_thread() is not threading.main_thread():
            logging.warning("not in the main thread: SIGTERM and SIGINT will end the run without a last checkpoint")
            return self
        self._requested = None
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not set from Python and cannot be set back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._requested is None:
            self._requested, self._since = name, time.monotonic()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
