"""Command line: trains, distils and evaluates DeSKPro as a configuration says.

python -m deskpro_jax.main --config configs/celeb.py --workdir runs/celeb
"""

from __future__ import annotations

import logging as std_logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from deskpro_jax import experiment
from deskpro_jax.errors import InputError, MissingInputError, RunError, exit_code
from deskpro_jax.loop import Stopped

MODES = ("train", "evaluate")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, with ':variant' if wanted.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, results.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "'evaluate' scores the checkpoints that are in the workdir.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, to run as several processes; 'auto' on a TPU slice or under Slurm."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes; with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Number of this process, from 0; with --coordinator.")


def _quiet() -> None:
    logging.set_verbosity(logging.INFO)
    for name in ("orbax", "jax", "grain"):  # their INFO lines bury ours
        std_logging.getLogger(name).setLevel(std_logging.WARNING)
    logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname or record.levelno > 20)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Parses the command line; a wrong flag, field, variant or file ends the command with one line and exit code 2."""
    try:
        left = flags.FLAGS(arguments)
        _ = _CONFIG.value and _CONFIG.value.seed  # a file that could not be read says so when it is first used
    except (flags.Error, AttributeError, OSError) as error:
        print(f"error: {_explain(error)}", file=sys.stderr)
        sys.exit(2)
    return left


def _explain(error: Exception) -> str:
    if isinstance(error, AttributeError):  # ml_collections wraps a KeyError: 'epoch'\nDid you mean "epochs" ...
        inner = error.args[0] if error.args else ""
        text = str(inner.args[0] if isinstance(inner, KeyError) and inner.args else inner)
        return f"the configuration has no field {' - '.join(text.splitlines())} (configs/base.py lists them all)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OSError):
        return f"--config cannot be read: {lines[-1]}"
    if any(line.startswith("Traceback") for line in lines):  # raised while a configuration file ran
        return f"{lines[0].removesuffix('Error whilst parsing config file:')}{lines[-1].removeprefix('ValueError: ')}"
    return " ".join(lines)


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
    try:
        if _COORDINATOR.value:
            _join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
        experiment.run(_CONFIG.value, Path(_WORKDIR.value or "."), _MODE.value)
    except Stopped as stop:
        print(stop, file=sys.stderr)
    except (InputError, MissingInputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
