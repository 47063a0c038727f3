"""The errors that a user can cause or meet, and how each ends a command: one line on standard error, an exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable

_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)  # a path that the user has to choose otherwise
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What XLA, CUDA and their libraries say where memory is short, also at a start beside a process that has taken it.
_OUT_OF_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY|bad_alloc|cannot allocate memory"
    r"|(CUBLAS|CUDNN|CUSOLVER)_STATUS_ALLOC",
    re.IGNORECASE,
)
_GPU_IN_USE = re.compile(
    r"CUDA_ERROR_DEVICES?_UNAVAILABLE|devices are busy|device or resource busy|already in use by process"
    r"|(CUBLAS|CUDNN|CUSOLVER)_STATUS_NOT_INITIALIZED|(Failed|Unable|could not) (to )?create (cublas|cudnn|cusolver)"
    r"|DNN library initiali[sz]ation failed|(gpusolver|cusolver)\w*Create\b",
    re.IGNORECASE,
)
_NO_BACKEND = re.compile(r"Unable to initialize backend|Unknown backend|No visible GPU devices")
_SMALLER = (
    "use a smaller batch, by --batch (in training --config.data.identities, in evaluation --config.eval.batch), or a"
    " machine with more"
)
_ALONE = (
    "end other processes that use it, or set XLA_PYTHON_CLIENT_MEM_FRACTION"
    " (jax takes 0.75 of its memory when it starts)"
)


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
    refused = isinstance(error, OSError) and error.errno in _REFUSED
    return 2 if refused or isinstance(error, (InputError, MissingInputError)) else 1


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
    except (InputError, MissingInputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    except Exception as error:
        line = out_of_memory_line(error) or _of_the_system(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return exit_code(error)


def out_of_memory_line(error: BaseException) -> str | None:
    """Returns the line for an error that comes of too little memory or of a GPU in use; None for any other.

    Args:
        error: what was raised; what it was raised from counts too.
    """
    link: BaseException | None = error
    while link is not None:
        reason = (str(link).strip().splitlines() or [type(link).__name__])[0][:200]
        if isinstance(link, MemoryError) or (isinstance(link, OSError) and link.errno == errno.ENOMEM):
            return f"out of memory ({reason}): {_SMALLER}."
        # By their texts: importing jax for the type would load it in every command.
        if isinstance(link, (RuntimeError, ValueError)):
            if _GPU_IN_USE.search(str(link)):
                return f"the GPU cannot be used ({reason}): {_ALONE}, or {_SMALLER}."
            if _OUT_OF_MEMORY.search(str(link)):
                return f"out of memory ({reason}): {_SMALLER}; on a GPU {_ALONE}."
            if _NO_BACKEND.search(str(link)):
                return (
                    f"{reason}: correct JAX_PLATFORMS, or the driver and jax's plugin ('deskpro version' shows them)."
                )
        link = link.__cause__
    return None


def _of_the_system(error: Exception) -> str | None:
    """Returns the line for a file that cannot be written or read, None for an error that is none of the system's."""
    text = (str(error).strip().splitlines() or [""])[0][:400]
    if isinstance(error, OSError):
        number = error.errno
        if number in (*_REFUSED, *_FULL) and error.filename:
            text = f"{error.filename} cannot be used ({error.strerror})"
    else:  # of a library in C++, which has only its text
        number = next((number for number in (*_REFUSED, *_FULL) if os.strerror(number) in str(error)), None)
        if number is None:
            return None
    if number in _FULL:
        return f"{text}: free some space, or give another path."
    return f"{text}: correct the path, or its permissions." if number in _REFUSED else str(error)
