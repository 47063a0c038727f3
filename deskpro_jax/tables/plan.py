"""The cells of an ablation on disk: rows of the paper's Table 3 by seed, each a run in a workdir of its own."""

from __future__ import annotations

import difflib
import functools
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from deskpro_jax.config.fields import FREE, differences, flatten
from deskpro_jax.config.files import find_config
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.similarity import BOTH
from deskpro_jax.storage.files import read_json
from deskpro_jax.workdir.layout import RESULTS_FILE

# Fields that the rows of the table set, so nobody else may.
TAKEN = ("seed", "model.body", "model.face", "model.attention", "loss.attention_weight", "loss.alpha")
# Fields that may change when a run goes on, but not between the results of one table.
_SCORED = ("eval.flip", "eval.missing_face", "eval.report", "eval.protocols", "eval.rerank")


# Fields that say where a cell finds what it needs: the folder of the whole ablation may be moved.
_TAKEN_OVER = ("init.body", "init.face")


@dataclass(frozen=True)
class Row:
    """A row of Table 3.

    Attributes:
        name: variant of the configuration (`configs/variants.py`).
        label: what the paper calls it.
        parts: which of `COMPONENTS` it has.
        paper: R-1 and mAP on Celeb-reID-light in percent (Wu et al., ICIP 2022, Table 3).
        taught: whether it needs a teacher.
        streams: the rows of the body stream and of the face stream, where it has both.
    """

    name: str
    label: str
    parts: tuple[str, ...]
    paper: tuple[float, float]
    taught: bool = False
    streams: tuple[str, ...] = ()


COMPONENTS = ("G", "CSA", "L_att", "student without L_fkp", "student with L_fkp", "teacher")
TEACHER = "teacher"
_G, _CSA, _ATT, _PLAIN, _FKP, _TEACHER = COMPONENTS
ROWS = (
    Row("baseline", "1 (baseline)", (_G,), (32.9, 18.8)),
    Row("csa", "2", (_G, _CSA), (33.5, 20.1)),
    Row("csa_att", "3", (_G, _CSA, _ATT), (37.2, 20.3)),
    Row("face", "4", (_PLAIN,), (41.6, 20.7)),
    Row("face_fkp", "5", (_FKP,), (47.0, 25.6), True),
    Row(TEACHER, "6", (_TEACHER,), (47.4, 25.8), True),
    Row("two_stream", "7", (_G, _CSA, _ATT, _PLAIN), (50.1, 27.4), streams=("csa_att", "face")),
    Row("deskpro", "DeSKPro", (_G, _CSA, _ATT, _FKP), (52.0, 29.8), True, ("csa_att", "face_fkp")),
    Row("deskpro_star", "DeSKPro*", (_G, _CSA, _ATT, _TEACHER), (53.7, 30.9), True, ("csa_att", TEACHER)),
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


def choose_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """Returns the rows of these names in the order of the table, and the teacher's where others learn from it.

    Raises:
        InputError: a name is unknown, or there is none.
    """
    known = [row.name for row in ROWS]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
            raise InputError(f"--rows: no row {name!r}; {hint}")
    chosen = [row for row in ROWS if row.name in names]
    if not chosen:
        raise InputError(f"--rows is empty; give some of {', '.join(known)}.")
    return tuple(chosen)


def read_config(path: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Reads a configuration as `deskpro_jax.main` does.

    Args:
        path: of the file, or an installed one's name, with ":variant" if wanted.
        overrides: flags like "--config.train.epochs=2".

    Raises:
        MissingInputError: there is no such file.
        InputError: a variant or field is unknown, or a value is of the wrong type.
    """
    path = find_config(path)
    values, arguments = flags.FlagValues(), ["ablate", f"--config={path}", *overrides]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of how ml_collections imports the file
            values(arguments)
        return ml_collections.ConfigDict(holder.value)
    except (flags.Error, AttributeError, ValueError, OSError, TypeError) as error:
        inner = error.args[0] if isinstance(error, AttributeError) and error.args else error
        inner = inner.args[0] if isinstance(inner, KeyError) and inner.args else inner
        lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
        lines[:1] = [f"no field {lines[0]}"] if isinstance(error, AttributeError) and lines else lines[:1]
        told = lines[-1] if any(line.startswith("Traceback") for line in lines) else " ".join(lines)
        raise InputError(f"--config {path}: {told.removeprefix('ValueError: ')}") from error


def plan_cells(
    config: str, overrides: Sequence[str], rows: Iterable[Row], seeds: int, folder: Path, *, joint: bool = False
) -> tuple[list[Cell], list[str]]:
    """Lays out the runs of an ablation, seed by seed; a seed's teacher comes first and is trained once.

    The streams share no parameter, the loss is a sum of theirs and Adam works parameter by parameter: trained together
    or each by itself, a stream is the same but for rounding. A row of two streams takes them from the rows of one.

    Args:
        config: path of the configuration, with ":variant" if wanted.
        overrides: flags like "--config.train.epochs=2" for all runs.
        rows: which rows.
        seeds: how many seeds, from that of the configuration on.
        folder: where all of it goes.
        joint: whether the rows of two streams are trained all the same.

    Returns:
        The cells in the order in which they are run, and what is worth telling.

    Raises:
        InputError, MissingInputError: the configuration cannot be read, or an override sets what the rows set.
    """
    named = [flag.removeprefix("--config.").split("=")[0] for flag in overrides]
    if wrong := [name for name in named if name in TAKEN]:
        raise InputError(
            f"--config.{wrong[0]} is set by the {'seeds' if wrong[0] == 'seed' else 'rows'} of the table: leave it out,"
            " or change it in a configuration file."
        )
    base, folder = read_config(config, overrides), folder.absolute()
    shared = list(overrides)
    if not base.data.data_dir and find_dataset(base.data.name).synthetic_size:
        shared.append(f"--config.data.data_dir={folder / 'data'}")
    if not base.compilation_cache:
        shared.append(f"--config.compilation_cache={folder / 'xla_cache'}")
    if "eval.baselines" not in named:
        shared.append("--config.eval.baselines=False")  # the same numbers in every cell
    given = bool(base.teacher.checkpoint) or not base.teacher.train
    apart = not joint and _separable(base)
    rows, notes = _with_needed(tuple(rows), given=given, apart=apart)
    cells: list[Cell] = []
    for seed in range(base.seed, base.seed + seeds):
        done: dict[str, Cell] = {}
        for row in rows:
            variant = f"{config},{row.name}" if ":" in config else f"{config}:{row.name}"
            flags_ = [f"--config={variant}", f"--config.seed={seed}", *shared]
            needs: list[Cell] = []
            if row.taught and not given and row.name != TEACHER:
                needs.append(done[TEACHER])
                flags_.append(f"--config.teacher.checkpoint={done[TEACHER].folder}")
            if row.streams and apart:
                flags_.append("--config.train.epochs=0")
                for field, name in zip(("body", "face"), row.streams, strict=True):
                    if name != TEACHER:
                        needs.append(done[name])
                        flags_.append(f"--config.init.{field}={done[name].folder}")
            cell = Cell(row, seed, folder / row.name / str(seed), tuple(flags_), tuple(needs))
            done[row.name] = cell
            cells.append(cell)
    for cell in cells[: len(rows)]:
        _ = cell.config  # a configuration without these variants is told before hours of work
    return cells, notes


def _separable(config: ml_collections.ConfigDict) -> bool:
    """Says whether a stream trained by itself is what training both gives; a fork's terms may tie them together.

    What is taken over is the end of the training, so another checkpoint must not be asked for either.
    """
    return not config.loss.extra and not config.init.dont_load and config.eval.report == "last"


def _with_needed(rows: tuple[Row, ...], *, given: bool, apart: bool) -> tuple[tuple[Row, ...], list[str]]:
    """Adds the rows that others need; returns the teacher first, those put together last, and what was added."""
    wanted: dict[str, list[str]] = {}  # row that is needed -> those that need it
    for row in rows:
        for name in row.streams if apart else ():
            if name != TEACHER:  # for which `taught` stands
                wanted.setdefault(name, []).append(row.name)
    taught = [row.name for row in ROWS if row.taught and row.name != TEACHER and (row in rows or row.name in wanted)]
    if taught and not given:
        wanted[TEACHER] = taught
    there = {row.name for row in rows}
    notes = [
        f"row {name} is run as well: {', '.join(users)} {'learn from' if name == TEACHER else 'take a stream of'} it."
        for name, users in wanted.items()
        if name not in there
    ]
    chosen = [row for row in ROWS if row.name in there or row.name in wanted]
    return tuple(sorted(chosen, key=lambda row: given or row.name != TEACHER)), notes


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
        before, results = flatten(record["config"]), record["results"]
        scores: dict[str, dict[str, float]] = {}
        for result in results:
            if result["protocol"] not in scores or result["stream"] == BOTH:
                scores[result["protocol"]] = {name: float(result[name]) for name in ("mAP", "R-1")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} holds no results ({error!r}): remove {cell.folder} to run it again.") from error
    moved = _TAKEN_OVER if cell.row.streams else ()
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
