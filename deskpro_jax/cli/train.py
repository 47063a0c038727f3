"""Command line: trains and evaluates a method, as a configuration describes it.

deskpro train --config celeb --workdir runs/celeb
python -m deskpro_jax.main --config configs/celeb.py --workdir runs/celeb
"""

from __future__ import annotations

import logging as std_logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from deskpro_jax import experiment
from deskpro_jax.cli.commands import EXIT_CODES, PROGRAM, examples, find_command
from deskpro_jax.config import files
from deskpro_jax.config.reading import explain
from deskpro_jax.errors import InputError, end_command
from deskpro_jax.runtime import cpu
from deskpro_jax.runtime.accelerators import warn_of_unused_gpu

MODES = ("train", "evaluate")

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration: a file, or the name of an installed one, optionally with ':variant'."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, results.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "'evaluate' scores the checkpoints that are in the workdir.")
_PRINT = flags.DEFINE_bool("print", False, "Only prints the results and writes nothing into the workdir.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, to run as several processes; 'auto' on a TPU slice or under Slurm."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes; with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Number of this process, counted from 0; with --coordinator.")


def _quiet() -> None:
    logging.set_verbosity(logging.INFO)
    for name in ("orbax", "jax", "grain"):  # their INFO lines bury ours
        std_logging.getLogger(name).setLevel(std_logging.WARNING)
    logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname or record.levelno > 20)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Parses the command line; a wrong flag, field, variant or file ends the command with one line and exit code 2."""
    try:
        left = flags.FLAGS(_with_config_file(arguments))
        _ = _CONFIG.value and _CONFIG.value.seed  # a file that could not be read raises when it is first used
    except Exception as error:  # the configuration file is the user's code
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(2)
    return left


def _join(coordinator: str, processes: int | None, process: int | None) -> None:
    """Joins the other processes of this run, before anything is computed."""
    if coordinator == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:  # jax found no cluster that it knows
            raise InputError(
                "--coordinator=auto works on a TPU slice, under Slurm and under Open MPI, and this is none of them:"
                " give HOST:PORT of process 0, with --processes and --process."
            ) from error
        return
    if processes is None or process is None:
        raise InputError("--coordinator needs --processes (how many there are) and --process (which this is).")
    jax.distributed.initialize(coordinator, processes, process)


def main(arguments: Sequence[str]) -> int:
    """Runs the experiment; returns the exit code."""
    if len(arguments) > 1:
        print(f"unexpected argument {arguments[1]!r}; flags start with --.", file=sys.stderr)
        return 2
    _quiet()

    def run() -> None:
        if _COORDINATOR.value:
            _join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        if _PRINT.value and _MODE.value != "evaluate":
            raise InputError("--print goes with evaluate: training has to write into its workdir.")
        warn_of_unused_gpu()
        experiment.run(_CONFIG.value, Path(_WORKDIR.value or "."), _MODE.value, write=not _PRINT.value)

    return end_command(run, stopped=0)


def _main_of_command(arguments: Sequence[str]) -> int:
    cpu.keep_working_memory()
    return main(arguments)


def _with_config_file(arguments: Sequence[str]) -> list[str]:
    """Returns the command line with the path of the configuration file in place of what `--config` names."""
    replaced = list(arguments)
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            replaced[position] = f"{flag}={_config_file(value)}"
        elif position + 1 < len(replaced):
            replaced[position + 1] = _config_file(replaced[position + 1])
    return replaced


def _config_file(name: str) -> str:
    path = files.find_config(name)
    # A fork's modules may lie beside its configuration; last, so that they hide no other module.
    folder = str(Path(path.partition(":")[0]).parent.resolve())
    if folder not in sys.path and not files.FOLDER.samefile(folder):
        sys.path.append(folder)
    return path


def help_text(name: str) -> str:
    """Returns what `--help` prints.

    Args:
        name: of the command, "train" or "evaluate".
    """
    about = find_command(name)
    assert about is not None
    lines = [f"usage: {PROGRAM} {name} --config NAME|FILE[:VARIANT] --workdir DIR [--config.FIELD=VALUE ...]", ""]
    lines += [f"{about.summary[0].upper()}{about.summary[1:]}.", "", "flags:"]
    own: list[Any] = next(group for group in flags.FLAGS.flags_by_module_dict().values() if _is_own(group))
    hidden = "print" if name == "train" else "mode"
    lines += [f"  --{flag.name:<12} {flag.help}" for flag in own if flag.name != hidden]
    lines += ["", "installed configurations:", f"  {', '.join(files.names())}"]
    lines += [f"  their fields, with what each means: {files.FOLDER / 'base.py'}"]
    return "\n".join([*lines, "", examples(about), "", EXIT_CODES])


def _is_own(group: Sequence[Any]) -> bool:
    return any(flag.name == _WORKDIR.name for flag in group)


def command(arguments: Sequence[str] | None = None) -> int:
    """Runs the command as a shell does; ends the process (SystemExit) with its exit code.

    Args:
        arguments: the flags; None for those of the process.
    """
    if arguments is not None:
        sys.argv = [sys.argv[0], *arguments]  # where config_flags looks for --config.FIELD
    if {"-h", "-help", "--help", "--helpshort"} & set(sys.argv[1:]):
        print(help_text("evaluate" if "--mode=evaluate" in sys.argv else "train"))
        return 0
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(_main_of_command, flags_parser=parse_flags)
    raise AssertionError("app.run returned")


if __name__ == "__main__":
    sys.exit(command())
