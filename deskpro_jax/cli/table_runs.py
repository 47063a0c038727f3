"""What the commands that run a table share: flags, the lock of its folder, runs, and how failures are listed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import ml_collections

from deskpro_jax.cli.arguments import positive
from deskpro_jax.errors import MissingInputError
from deskpro_jax.storage.files import check_writable
from deskpro_jax.storage.locks import locked
from deskpro_jax.tables.plan import Cell, read_scores
from deskpro_jax.tables.run import default_jobs

_LOCK_SECONDS = 20.0  # an interrupted table leaves runs that still save their state


class RunCells(Protocol):
    """`tables.run.run_cells`, or a function that does more."""

    def __call__(self, cells: Sequence[Cell], folder: Path, jobs: int) -> dict[Cell, str]:
        """Runs cells; returns those that failed with the reason."""
        ...


def add_run_flags(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Adds the flags of every command that runs a table.

    Args:
        parser: of the command.
        required: whether there is nothing to do without a configuration and a folder.
    """
    parser.allow_abbrev = False  # --config.FIELD=VALUE is no flag of this parser
    parser.add_argument(
        "--config",
        required=required,
        help="configuration, optionally with ':variant'; --config.FIELD=VALUE sets a field for all runs",
    )
    parser.add_argument("--workdir", required=required, type=Path, help="folder; each run's workdir is ROW/SEED in it")
    parser.add_argument(
        "--seeds", type=positive, default=3, help="number of seeds, from the configuration's (default: 3)"
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        help="runs side by side, which share the CPU cores (default: one per core, at most 4; 1 with an accelerator)",
    )


def unknown_flag(more: Sequence[str]) -> str:
    """Returns an error about arguments that set no field of a configuration, "" where all of them do."""
    strange = [flag for flag in more if not (flag.startswith("--config.") and "=" in flag)]
    return f"unknown argument {strange[0]!r}; fields are set as --config.FIELD=VALUE." if strange else ""


def names_in(text: str) -> list[str]:
    """Returns the names in a text that joins them by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def check_places(workdir: Path, out: Path | None, name: str, endings: Sequence[str]) -> Path:
    """Checks that the folders of a table can be written to; returns the path of its files without their ending.

    Args:
        workdir: folder of the runs.
        out: path of the table that was asked for.
        name: of the table in `workdir` otherwise.
        endings: of the files, e.g. ".md".

    Raises:
        MissingInputError: the folder of `out` does not exist.
        InputError: a folder cannot be written to.
    """
    stem = workdir / name if out is None else out
    if out is not None and not stem.absolute().parent.is_dir():
        raise MissingInputError(f"no folder {stem.absolute().parent}: create it, or correct --out.")
    for folder in (workdir, stem.absolute().parent):
        check_writable(folder, "give another --workdir or --out, or correct its permissions")
    return stem.with_suffix("") if stem.suffix in endings else stem


def finish_cells(
    cells: Sequence[Cell],
    folder: Path,
    jobs: int | None,
    write: Callable[[], None],
    *,
    run: RunCells,
    build: Callable[[ml_collections.ConfigDict, Path], object],
) -> dict[Cell, str]:
    """Runs the cells of a table that are not finished, and writes the table, also when it ends early.

    Args:
        cells: of the table.
        folder: of the table, which no other process may be at work in.
        jobs: runs side by side; None for the default.
        write: writes the table of the finished cells.
        run: runs cells, `tables.run.run_cells`.
        build: builds the dataset, once for all runs.

    Returns:
        The cells that failed -> reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    conflict = f"another process is at work in {folder}: wait for it, or end it."
    # A run that outlives this process still saves: it keeps others out, too.
    with locked(folder / ".lock", conflict, seconds=_LOCK_SECONDS, inherited=True):
        try:
            beside = jobs or 1
            if any(read_scores(cell) is None for cell in cells):
                build(cells[0].configuration, cells[0].folder)  # by one, before several use it
                beside = jobs or default_jobs()
            return run(cells, folder, jobs=beside)
        finally:
            write()


def report_failures(failed: Mapping[Cell, str], cells: Sequence[Cell]) -> int:
    """Lists the runs that failed; returns the exit code."""
    if not failed:
        return 0
    print(f"error: {len(failed)} of {len(cells)} runs failed; the same command tries them again:", file=sys.stderr)
    for cell, reason in failed.items():
        print(f"  {cell.name}: {reason}", file=sys.stderr)
    return 1
