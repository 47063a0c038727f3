"""The errors a user can cause or meet, and how each one ends a command: a line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class InputError(ValueError):
    """A field, flag or file content is not what the command needs (exit code 2)."""


class MissingInputError(FileNotFoundError):
    """A file or folder that the command needs is not there (exit code 2)."""


class RunError(RuntimeError):
    """Work that started well cannot go on (exit code 1)."""


class Stopped(Exception):
    """A signal asked for an end; what is done is kept, and the same command goes on from there."""


def exit_code(error: BaseException) -> int:
    """Returns the exit code a command ends with after `error`: 2 for bad input, 1 otherwise."""
    return 2 if isinstance(error, (InputError, MissingInputError)) else 1


def end_command(work: Callable[[], int | None], interrupted: str = "interrupted.", stopped: int = 1) -> int:
    """Does a command's work; an error that a user can cause or meet ends it with one line on standard error.

    Args:
        work: returns the exit code; None is 0.
        interrupted: what is printed after Ctrl-C, where the work does not save its state first (`Stopped`).
        stopped: the exit code after `Stopped`.

    Returns:
        The exit code: that of the work, 2 after bad input, 1 after any other failure.
    """
    try:
        return work() or 0
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stopped
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 1
    except BrokenPipeError:  # `... | head` has read enough; what Python flushes at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, MissingInputError, RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
