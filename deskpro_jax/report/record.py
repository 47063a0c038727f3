"""What the files of a workdir say of a run: configuration, results, checkpoints, how far each phase has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from deskpro_jax.config import fields
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.methods.deskpro import needs_teacher
from deskpro_jax.storage import files as files_
from deskpro_jax.train.metrics_file import METRICS_FILE
from deskpro_jax.workdir import layout
from deskpro_jax.workdir.record import CONVERSION_FILE, START

_PHASES = ("teacher", "student")  # of DeSKPro
OTHER_RESULTS = "results-on-*.json"
NOT_PART = "not part of this configuration"  # of a phase


@dataclass(frozen=True)
class Record:
    """The files of a workdir that are there and can be read.

    Attributes:
        folder: the workdir.
        config: `config.json`; None for converted weights.
        conversion: `conversion.json` of converted weights.
        results: of every results file, by file name, the run's own first.
        steps: phase -> steps of its checkpoints, ascending; phases without any are absent.
        starts: phase -> published weights that it began with, by role.
        problems: files that cannot be read, and why.
    """

    folder: Path
    config: dict[str, Any] | None
    conversion: dict[str, Any] | None
    results: dict[str, dict[str, Any]]
    steps: dict[str, tuple[int, ...]]
    starts: dict[str, dict[str, Any]]
    problems: tuple[str, ...]

    @property
    def own_results(self) -> dict[str, Any] | None:
        """The content of `results.json`."""
        return self.results.get(layout.RESULTS_FILE)

    def field(self, name: str) -> Any:
        """Returns a field of the run's configuration by dotted name, None where nothing says it."""
        return fields.flatten(self.config or {}).get(name)


def read_record(folder: Path) -> Record:
    """Reads the files of a workdir.

    Args:
        folder: what `deskpro_jax.main` or `deskpro_jax.convert` wrote.

    Raises:
        MissingInputError: the folder does not exist.
        InputError: it is not a workdir.
    """
    if not folder.is_dir():
        raise MissingInputError(f"no workdir at {folder}: give the folder that deskpro_jax.main had as --workdir.")
    steps = {path.name: kept for path in sorted(folder.iterdir()) if (kept := _steps(path / "checkpoints"))}
    known = (
        layout.CONFIG_FILE,
        CONVERSION_FILE,
        layout.RESULTS_FILE,
        *(f"{phase}/{METRICS_FILE}" for phase in _PHASES),
    )
    if not steps and not any((folder / name).is_file() for name in known):
        raise InputError(
            f"{folder} is not a workdir: it has none of {', '.join(known)} and no checkpoints. Give the folder that"
            " deskpro_jax.main had as --workdir, or that deskpro_jax.convert wrote."
        )
    problems: list[str] = []

    def read(path: Path) -> dict[str, Any] | None:
        try:
            return files_.read_json(path)
        except (InputError, OSError) as error:
            problems.append(str(error))
            return None

    files = [folder / layout.RESULTS_FILE, *sorted(folder.glob(OTHER_RESULTS))]
    results = {path.name: found for path in files if (found := read(path)) is not None}
    starts = {path.parent.name: found for path in sorted(folder.glob(f"*/{START}")) if (found := read(path))}
    return Record(
        folder,
        read(folder / layout.CONFIG_FILE),
        read(folder / CONVERSION_FILE),
        results,
        steps,
        starts,
        tuple(problems),
    )


def _steps(checkpoints: Path) -> tuple[int, ...]:
    if not checkpoints.is_dir():
        return ()
    return tuple(sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal() and path.is_dir()))


def phase_names(record: Record) -> tuple[str, ...]:
    """Returns the phases of a run: those of its method, and others that have checkpoints."""
    model = (record.config or record.conversion or {}).get("model")
    name = str(model.get("name", "deskpro") if isinstance(model, Mapping) else "deskpro").rpartition(".")[2]
    known = _PHASES if name == "deskpro" and "osnet" not in record.steps else (name,)
    return tuple(dict.fromkeys((*(known if name else ()), *record.steps)))


def phase_state(record: Record, phase: str, epochs_done: float | None) -> str:
    """Returns in words how far a phase has come.

    Args:
        record: of the workdir.
        phase: "teacher" or "student".
        epochs_done: the last epoch in its metrics, None where there are none.
    """
    epochs = record.field(f"{'teacher' if phase == 'teacher' else 'train'}.epochs")
    begun = epochs_done is not None or phase in record.steps
    if record.conversion is not None and record.config is None:
        return "converted weights, not trained here" if begun else "not among the converted weights"
    if not begun:
        return _absent(record, phase)
    if epochs_done is None:
        return f"checkpoints but no {METRICS_FILE}"
    if epochs is None:
        return f"{epochs_done:g} epochs"
    if epochs_done < epochs:
        return f"unfinished: {epochs_done:.4g} of {epochs} epochs; the same command goes on with it"
    return f"finished: {epochs} epoch{'s' if epochs != 1 else ''}"


def _absent(record: Record, phase: str) -> str:
    if record.config is None:
        return "not there"
    config = ml_collections.ConfigDict(record.config)
    try:
        if phase == "teacher":
            if not needs_teacher(config):
                return NOT_PART
            checkpoint = config.teacher.checkpoint
            return f"given, not trained here: {checkpoint}" if checkpoint else "not begun"
        used = config.model.body or config.model.face == "student"
        return "not begun" if used else NOT_PART
    except (AttributeError, KeyError):  # a configuration of another version
        return "not there"


def short_name(folder: Path) -> str:
    """Returns the name of a run on the page: its folder, with the one above where that is only a number (a seed)."""
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name
