"""Signals that end a run: noticed between two steps, so that the state is saved first; at once where nothing is new."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import jax
from absl import logging

from deskpro_jax.errors import Stopped

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_END = b"\0"  # no signal's number
_PIPES: set[int] = set()  # of entered guards, the ends that Python writes to


def _leave_to_parent() -> None:
    # A forked process shares the pipe: a signal that ends it must not be taken for one to its parent.
    pipe = signal.set_wakeup_fd(-1)
    if pipe not in _PIPES:
        signal.set_wakeup_fd(pipe)


os.register_at_fork(after_in_child=_leave_to_parent)


class _Ending(NamedTuple):
    message: str
    finish: Callable[[], None] | None


class SignalGuard:
    """While entered, SIGTERM and the first SIGINT (Ctrl-C) set `requested` instead of ending the process.

    The second SIGINT raises KeyboardInterrupt. The handlers of before come back on exit; only after `Stopped` on
    SIGTERM that signal is ignored from then on, so that a second one cannot spoil the exit code. Python delivers
    signals to the main thread alone: entered in another thread, the guard changes nothing and never fires.
    """

    def __init__(self) -> None:
        self._requested: str | None = None
        self._since = 0.0
        self._previous: dict[signal.Signals, Any] = {}
        self._ending: _Ending | None = None
        self._lock = threading.Lock()
        self._pipe: tuple[int, int] | None = None
        self._previous_fd = -1
        self._watcher: threading.Thread | None = None

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
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        _PIPES.add(self._pipe[1])
        self._watcher = threading.Thread(target=self._watch, args=(self._pipe[0],), name="signals", daemon=True)
        self._watcher.start()
        self._previous_fd = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            if number == signal.SIGTERM and self._requested == number.name and kind and issubclass(kind, Stopped):
                handler = signal.SIG_IGN
            # None stands for a handler that was not set from Python and cannot be set back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
        if self._pipe is not None and self._watcher is not None:
            signal.set_wakeup_fd(self._previous_fd)
            _PIPES.discard(self._pipe[1])
            os.write(self._pipe[1], _END)
            self._watcher.join()
            for end in self._pipe:
                os.close(end)
            self._pipe = self._watcher = None

    @contextlib.contextmanager
    def expendable(self, message: str, finish: Callable[[], None] | None = None) -> Iterator[None]:
        """While entered, a signal ends the process at once with exit code 0: what is done here is lost, and repeated.

        Python's own handlers wait until the main thread is between two instructions, and a compilation is a single
        one of minutes. With several processes this changes nothing, since one that leaves makes the others fail.

        Args:
            message: what is printed after the name of the signal: what is saved, and how to go on.
            finish: called first, from another thread; an error it raises is printed, and the exit code is 1 then.
        """
        if jax.process_count() > 1:
            yield
            return
        self._allow(_Ending(message, finish))
        try:
            yield
        finally:
            self._allow(None)

    def _allow(self, ending: _Ending | None) -> None:
        with self._lock:  # held by a watcher that is ending the process: nothing goes on meanwhile
            self._ending = ending
        if ending is not None and self._requested is not None and self._pipe is not None:
            os.write(self._pipe[1], bytes([signal.Signals[self._requested]]))

    def _watch(self, receiver: int) -> None:
        # Python writes the number of a signal into the pipe as soon as it arrives, whatever the main thread does.
        while (received := os.read(receiver, 1)) != _END:
            with self._lock:
                if self._ending is not None and received[0] in _SIGNALS:
                    _end(signal.Signals(received[0]).name, self._ending)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._requested is None:
            self._requested, self._since = name, time.monotonic()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


def _end(name: str, ending: _Ending) -> None:
    text, code = f"{name}: {ending.message}", 0
    try:
        if ending.finish is not None:
            ending.finish()
    except Exception as error:
        text, code = f"error: {error}", 1
    for child in multiprocessing.active_children():
        child.kill()
    if sys.stderr.isatty():
        text = f"\x1b[?25h\n{text}"  # a progress bar hid the cursor
    os.write(2, f"{text}\n".encode())  # the main thread may hold the lock of sys.stderr
    os._exit(code)
