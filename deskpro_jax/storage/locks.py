"""Keeps other processes out of a folder or file while one is at work in it."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from deskpro_jax.errors import RunError

_POLL_SECONDS = 0.1


@contextlib.contextmanager
def locked(path: Path, conflict: str = "", *, seconds: float = 0.0, inherited: bool = False) -> Iterator[None]:
    """Holds an exclusive lock (`flock`), which the system releases when the process ends, however it ends.

    Where the file system has no locks, the block runs without one and a warning is logged.

    Args:
        path: a folder, or a file, which is created where it does not exist.
        conflict: the error when another process holds the lock for longer than `seconds`.
        seconds: how long to wait for another process; `math.inf` waits without an end.
        inherited: whether child processes hold the lock, too, until all of them have ended.

    Raises:
        RunError: another process holds the lock.
        OSError: the file cannot be created.
    """
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.set_inheritable(descriptor, inherited)
        try:
            if not _acquire(descriptor, seconds):
                raise RunError(conflict or f"another process is at work in {path}: wait for it, or end it.")
        except OSError as error:
            logging.warning("%s cannot be locked (%s): let only one process at a time work there", path, error)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, seconds: float) -> bool:
    if math.isinf(seconds):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(min(_POLL_SECONDS, seconds))
