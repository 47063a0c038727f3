"""The errors a user can cause or meet, and the exit code each one ends a command with."""

from __future__ import annotations


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
