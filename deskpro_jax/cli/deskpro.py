"""Command line: `deskpro COMMAND ...`, which loads the module of that command and calls it with the other arguments."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Sequence

from deskpro_jax import __version__
from deskpro_jax.cli.commands import COMMANDS, EXIT_CODES, PROGRAM, Command, find_command
from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.errors import InputError, end_command, missing_package

_HELP = ("-h", "--help", "help")
_VERSION = ("-V", "--version")


def help_text() -> str:
    """Returns what `deskpro --help` prints."""
    width = max(len(command.name) for command in COMMANDS)
    commands = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [FLAGS]",
            "",
            "Recognises people across cameras after they changed clothes (DeSKPro in JAX).",
            "",
            "commands:",
            *commands,
            "",
            f"'{PROGRAM} COMMAND --help' lists the flags of a command, with examples; '{PROGRAM} --version' is short.",
            "examples:",
            f"  {PROGRAM} train --config synthetic --workdir runs/synthetic",
            f"  {PROGRAM} embed --checkpoint runs/synthetic --images photos --out gallery.parquet",
            f"  {PROGRAM} search --gallery gallery.parquet --query photo.jpg --checkpoint runs/synthetic",
            "",
            EXIT_CODES,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the command and its flags; None for those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong input.
    """
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or [""]
    if name in _VERSION:
        print(f"{PROGRAM} {__version__}")
        return 0
    if name in _HELP and not rest:
        print(help_text())
        return 0
    if name == "help":  # help COMMAND
        name, rest = rest[0], ["--help"]
    if not name:
        print(help_text(), file=sys.stderr)
        return 2
    command = find_command(name)
    if command is None:
        print(f"error: {_unknown(name)}", file=sys.stderr)
        return 2
    return _run(command, rest)


def _unknown(name: str) -> str:
    hint = did_you_mean(name, (command.name for command in COMMANDS)) or "correct the name."
    return f"no command is called {name!r}; {hint} '{PROGRAM} --help' lists them."


def _run(command: Command, arguments: list[str]) -> int:
    # Ends through `finally`, so that nothing half-written stays; commands that save their state set their own handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return end_command(lambda: _load(command)([*arguments, *command.arguments]))


def _load(command: Command) -> Callable[[Sequence[str]], int]:
    """Returns the function of a command.

    Raises:
        InputError: a package that its module imports is not installed.
    """
    purpose = f"{PROGRAM} {command.name}"
    try:
        module = importlib.import_module(command.module)
    except ImportError as error:
        if command.extra:
            raise missing_package(purpose, command.extra, error) from error
        raise InputError(f"{purpose} needs {error.name or error}, which is not installed.") from error
    run: Callable[[Sequence[str]], int] = getattr(module, command.function)
    return run


if __name__ == "__main__":
    sys.exit(main())
