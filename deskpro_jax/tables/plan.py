"""The cells of a table on disk: rows by seed, each a run in a workdir of its own."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from deskpro_jax.config.fields import FREE, differences, flatten
from deskpro_jax.config.reading import read_config
from deskpro_jax.configs import base
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.similarity import BOTH
from deskpro_jax.storage.files import read_json
from deskpro_jax.tables.spec import Row, Table
from deskpro_jax.workdir.layout import RESULTS_FILE

# Fields that may change when a run continues, but not between the results of one table.
_SCORED = (
    "eval.flip",
    "eval.missing_face",
    "eval.distance",
    "eval.average_precision",
    "eval.report",
    "eval.protocols",
    "eval.rerank",
)


@dataclass(frozen=True)
class Cell:
    """One run: a row with a seed.

    Attributes:
        row: the row.
        seed: the seed.
        folder: its workdir.
        flags: of `deskpro_jax.main`, all but `--workdir`.
        needs: the cells that have to be finished first: whose teacher it learns from, whose streams it takes.
    """

    row: Row
    seed: int
    folder: Path
    flags: tuple[str, ...]
    needs: tuple[Cell, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def configuration(self) -> ml_collections.ConfigDict:
        """Its configuration."""
        config, *overrides = self.flags
        return read_config(config.split("=", 1)[1], overrides)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """All fields of its configuration, by dotted name."""
        return flatten(json.loads(self.configuration.to_json_best_effort()))


def plan_cells(
    table: Table,
    rows: Sequence[Row],
    config: str,
    overrides: Sequence[str],
    seeds: int,
    folder: Path,
    *,
    joint: bool = False,
    rows_first: bool = False,
) -> tuple[list[Cell], list[str]]:
    """Plans the runs of a table, seed by seed; rows that other rows need come first and are run once per seed.

    The streams share no parameter, the loss is a sum of theirs and Adam works parameter by parameter: trained together
    or each by itself, a stream is the same but for rounding. A row of two streams takes them from the rows of one.

    Args:
        table: the table.
        rows: which of its rows.
        config: path of the configuration, optionally with ":variant".
        overrides: flags like "--config.train.epochs=2" for all runs.
        seeds: how many seeds, from that of the configuration on.
        folder: of the table; each cell's workdir is ROW/SEED in it.
        joint: whether rows of two streams train them together all the same.
        rows_first: whether variants that `config` names change the rows ("debug" makes every method short), instead of
            rows changing them.

    Returns:
        The cells in the order in which they are run, and notes on rows that are run for other rows.

    Raises:
        InputError, MissingInputError: the configuration cannot be read, or an override sets what the rows set.
    """
    names = [flag.removeprefix("--config.").split("=")[0] for flag in overrides]
    if wrong := [name for name in names if name in ("seed", *table.fields)]:
        raise InputError(
            f"--config.{wrong[0]} is set by the {'seeds' if wrong[0] == 'seed' else 'rows'} of the table: leave it out,"
            " or change it in a configuration file."
        )
    base, folder = read_config(config, overrides), folder.absolute()
    shared = [*overrides, *_shared_folders(base, folder)]
    if "eval.baselines" not in names:
        shared.append("--config.eval.baselines=False")  # the same numbers in every cell
    apart = not joint and _separable(base)
    needs = {row.name: _needs(row, base) for row in table.rows}
    streams = {row.name: row.streams if apart else () for row in table.rows}
    rows, notes = _with_needed(table, rows, needs, streams)
    cells: list[Cell] = []
    for seed in range(base.seed, base.seed + seeds):
        done: dict[str, Cell] = {}
        for row in rows:
            variant = _with_variant(config, row.name, first=rows_first)
            sources = [*needs[row.name], *streams[row.name]]
            flags_ = [f"--config={variant}", f"--config.seed={seed}", *shared]
            if streams[row.name]:
                flags_.append("--config.train.epochs=0")
            flags_ += [f"--config.{field}={done[name].folder}" for field, name in sources]
            flags_ += row.flags
            needed = tuple(done[name] for _, name in sources)
            cell = done[row.name] = Cell(row, seed, folder / row.name / str(seed), tuple(flags_), needed)
            cells.append(cell)
    for cell in cells[: len(rows)]:
        _ = cell.config  # a configuration without these variants is refused before hours of work
    return cells, notes


def _with_variant(config: str, name: str, *, first: bool) -> str:
    """Returns the configuration with one more variant, after those that it names or before them."""
    path, colon, names = config.partition(":")
    if not colon:
        return f"{config}:{name}"
    return f"{path}:{name},{names}" if first else f"{config},{name}"


def _shared_folders(base: ml_collections.ConfigDict, folder: Path) -> list[str]:
    """Returns flags by which all cells use one synthetic dataset and one cache of compiled programs."""
    shared = []
    if not base.data.data_dir and find_dataset(base.data.name).synthetic_size:
        shared.append(f"--config.data.data_dir={folder / 'data'}")
    if not base.compilation_cache:
        shared.append(f"--config.compilation_cache={folder / 'xla_cache'}")
    return shared


def _needs(row: Row, base: ml_collections.ConfigDict) -> tuple[tuple[str, str], ...]:
    """Returns what a row needs of other rows: not what the configuration names itself."""
    fields = flatten(base)
    if not base.teacher.train:  # then it has to name one
        fields["teacher.checkpoint"] = True
    return tuple((field, name) for field, name in row.needs if not fields[field])


def _separable(config: ml_collections.ConfigDict) -> bool:
    """Returns whether a stream trained by itself is what training both gives; terms of a fork may couple them.

    What is taken over is the end of the training, so another checkpoint must not be asked for either.
    """
    return not config.loss.extra and not config.init.dont_load and config.eval.report == "last"


def _with_needed(
    table: Table,
    rows: Sequence[Row],
    needs: Mapping[str, Sequence[tuple[str, str]]],
    streams: Mapping[str, Sequence[tuple[str, str]]],
) -> tuple[tuple[Row, ...], list[str]]:
    """Adds the rows that other rows need; returns those that are needed to train first, and notes on what was added."""
    users: dict[str, list[str]] = {}  # row that is needed -> rows that need it
    for row in rows:
        for _, name in streams[row.name]:
            users.setdefault(name, []).append(row.name)
    chosen = {row.name for row in rows}
    teaching: dict[str, list[str]] = {}
    for row in table.rows:
        for _, name in needs[row.name] if row.name in chosen or row.name in users else ():
            teaching.setdefault(name, []).append(row.name)
    notes = [
        f"row {name} is run as well: {', '.join(by)} {verb} it."
        for needed, verb in ((users, "take a stream of"), (teaching, "learn from"))
        for name, by in needed.items()
        if name not in chosen
    ]
    every = [row for row in table.rows if row.name in {*chosen, *users, *teaching}]
    first = {name for row in table.rows for _, name in needs[row.name]}
    return tuple(sorted(every, key=lambda row: row.name not in first)), notes


def read_scores(cell: Cell) -> dict[str, dict[str, float]] | None:
    """Returns a finished cell's mAP and R-1 by protocol, None where it is not finished.

    Raises:
        InputError: it was run with another configuration, or its results are damaged.
    """
    path = cell.folder / RESULTS_FILE
    record = read_json(path)
    if record is None:
        return None
    try:
        # Fields that the version of those days did not have are as they are by default.
        before, results = flatten(base.get_config()) | flatten(record["config"]), record["results"]
        scores: dict[str, dict[str, float]] = {}
        for result in results:
            if result["protocol"] not in scores or result["stream"] == BOTH:
                scores[result["protocol"]] = {name: float(result[name]) for name in ("mAP", "R-1")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} holds no results ({error!r}): remove {cell.folder} to run it again.") from error
    moved = [field for field, _ in cell.row.streams]  # the folder of the whole table may be moved
    changed = differences(before, cell.config, lambda name: _matters(name) and name not in moved)
    if changed:
        raise InputError(
            f"{cell.folder} was run with another configuration:{changed}\nUse another --workdir, or the fields as they"
            " were."
        )
    return scores


def _matters(name: str) -> bool:
    return name in _SCORED or not (name.startswith(FREE) or name == "teacher.checkpoint")


def short_reason(log: str) -> str:
    """Returns in one line why a run failed, from what it printed."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"error: |\w*(Error|Exception)\b.*: ", line)]
    return (errors or lines or ["it printed nothing"])[-1][:300]
