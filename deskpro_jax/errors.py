"""The errors that a user can cause or meet, and how each ends a command: one line on standard error, an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class InputError(ValueError):
    """A field, flag or file has a value that the command cannot use (exit code 2)."""


class MissingInputError(FileNotFoundError):
    """A file or folder that the command needs does not exist (exit code 2)."""


class RunError(RuntimeError):
    """Work that has started cannot continue (exit code 1)."""


class Stopped(Exception):
    """A signal stopped the work; finished work is saved, and the same command continues from there."""


def missing_package(purpose: str, extra: str, error: ImportError) -> InputError:
    """Returns the error for an optional dependency that is not installed.

    Args:
        purpose: what needs the package, as the start of a sentence: "the report".
        extra: the optional dependencies of this package that include it, e.g. "report".
        error: what importing it raised.
    """
    needs = f"needs {error.name}" if error.name else f"cannot import a package ({error})"
    return InputError(f"{purpose} {needs}: pip install 'deskpro_jax[{extra}]'")


def exit_code(error: BaseException) -> int:
    """Returns the exit code of a command that ends with `error`: 2 for bad input, 1 otherwise."""
    return 2 if isinstance(error, (InputError, MissingInputError)) else 1


def end_command(work: Callable[[], int | None], interrupted: str = "interrupted.", stopped: int = 1) -> int:
    """Runs the work of a command; an error that a user can cause or meet ends it with one line on standard error.

    Args:
        work: returns the exit code; None is 0.
        interrupted: message after Ctrl-C, for work that does not save its state first (`Stopped`).
        stopped: exit code after `Stopped`.

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
    except BrokenPipeError:  # `... | head` has read enough; what Python flushes at exit goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, MissingInputError, RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        print(f"error: out of memory ({reason[0]}): use a smaller batch, or a machine with more.", file=sys.stderr)
        return 1


def _is_out_of_memory(error: Exception) -> bool:
    # By its text: importing jax for its type would load it in every command.
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error))
