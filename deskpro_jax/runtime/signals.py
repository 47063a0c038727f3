"""Signals that end a run: a flag that is read between two steps, so that the state is saved first.

Where there would be nothing new to save (`SignalGuard.expendable`) the process ends at once instead.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils

from deskpro_jax.errors import Stopped
from deskpro_jax.runtime.processes import any_process

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_BLOCK_DONE = b"\0"  # no signal's number
_AGREE_EVERY = 10  # steps between two agreements of several processes that have no preemption service

# A forked process shares the wakeup pipe: a signal that ends it must not be taken for one to its parent.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


class SignalGuard:
    """While entered, SIGTERM and the first SIGINT (Ctrl-C) set `requested` instead of ending the process.

    The second SIGINT raises KeyboardInterrupt. Earlier handlers come back on exit; only after `Stopped` on SIGTERM
    that signal is ignored from then on, so that a second one cannot spoil the exit code. Python delivers signals only
    to the main thread: entered in another thread, the guard changes nothing and never fires.

    With several processes jax's preemption service takes SIGTERM, and finds a step after which all processes stop.
    """

    def __init__(self) -> None:
        self.requested: str | None = None  # name of the first signal received, as "SIGTERM"
        self._previous: dict[signal.Signals, Any] = {}
        self._steps = 0  # calls of `stop_requested`, the same number in every process

    def __enter__(self) -> SignalGuard:
        if threading.current_thread() is not threading.main_thread():
            logging.warning("not in the main thread: SIGTERM and SIGINT will end the run without a last checkpoint")
            return self
        self.requested = None
        for number in (signal.SIGINT,) if _has_preemption_service() else _SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            if number == signal.SIGTERM and self.requested == number.name and kind and issubclass(kind, Stopped):
                handler = signal.SIG_IGN
            # None stands for a handler that was not set from Python and cannot be set back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = signal.Signals(number).name
            if _has_preemption_service():
                signal.raise_signal(signal.SIGTERM)  # Ctrl-C in one process stops all of them
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def stop_requested(self, epoch_ends: bool = False) -> str | None:
        """Returns the name of the signal to stop for, or None; to be called once after every step.

        With several processes all of them get an answer other than None after the same step.

        Args:
            epoch_ends: whether the step was the last of its epoch.
        """
        if jax.process_count() == 1:
            return self.requested
        self._steps += 1
        if _has_preemption_service():
            stop = multihost_utils.reached_preemption_sync_point(self._steps)
        else:  # an agreement is a collective, too dear for every step
            stop = (epoch_ends or self._steps % _AGREE_EVERY == 0) and any_process(self.requested is not None)
        return (self.requested or "SIGTERM") if stop else None

    @contextlib.contextmanager
    def expendable(self, message: str, finish: Callable[[], None] | None = None) -> Iterator[None]:
        """While entered, a signal ends the process at once with exit code 0: what is done here is lost, and repeated.

        Python's own handlers wait until the main thread is between two instructions, and a compilation is a single
        one of minutes. With several processes this changes nothing, since one that leaves makes the others fail.

        Args:
            message: what is printed after the name of the signal: what is saved, and how to go on.
            finish: called first, from another thread; an error it raises is printed, and the exit code is 1 then.
        """
        if not self._previous or jax.process_count() > 1:
            yield
            return
        receiver, sender = os.pipe()
        os.set_blocking(sender, False)
        watcher = threading.Thread(target=_end_on_signal, args=(receiver, message, finish), name="signals", daemon=True)
        watcher.start()
        # Python writes the number of a signal there as soon as it arrives, whatever the main thread does.
        previous = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        try:
            if self.requested is not None:
                os.write(sender, bytes([signal.Signals[self.requested]]))
            yield
        finally:
            signal.set_wakeup_fd(previous)
            os.write(sender, _BLOCK_DONE)
            watcher.join()  # nothing goes on where it is about to end the process
            os.close(sender)
            os.close(receiver)


def _has_preemption_service() -> bool:
    enabled: bool = jax.config.jax_enable_preemption_service  # type: ignore[attr-defined]
    return jax.distributed.is_initialized() and jax.process_count() > 1 and enabled


def _end_on_signal(receiver: int, message: str, finish: Callable[[], None] | None) -> None:
    while (received := os.read(receiver, 1)) != _BLOCK_DONE:
        if received[0] in _SIGNALS:
            _end_process(f"{signal.Signals(received[0]).name}: {message}", finish)


def _end_process(text: str, finish: Callable[[], None] | None) -> None:
    code = 0
    try:
        if finish is not None:
            finish()
    except Exception as error:
        text, code = f"error: {error}", 1
    for child in multiprocessing.active_children():
        child.kill()
    if sys.stderr.isatty():
        text = f"\x1b[?25h\n{text}"  # a progress bar hid the cursor
    os.write(2, f"{text}\n".encode())  # the main thread may hold the lock of sys.stderr
    os._exit(code)
