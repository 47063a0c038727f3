"""The figures of finished runs as the pages quote them: tables, sentences, machine and date."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation.similarity import BOTH
from deskpro_jax.report import attention
from deskpro_jax.report.opened import open_data, open_networks
from deskpro_jax.report.record import read_record
from deskpro_jax.storage.files import require_json
from deskpro_jax.tables.deskpro import TABLE_3
from deskpro_jax.tables.plan import Cell
from deskpro_jax.tables.table import FIGURES, check_claims, figure, protocols_of
from deskpro_jax.train.metrics_file import METRICS_FILE
from deskpro_jax.workdir.layout import CONFIG_FILE, RESULTS_FILE

_RANKS = ("R-1", "R-5", "R-10", "R-20")
Scores = dict[Cell, dict[str, dict[str, float]]]


def of_demo(folder: Path) -> dict[str, str]:
    """Returns the text of each block about a demo.

    Args:
        folder: the finished workdir.

    Raises:
        InputError: an earlier version made it, whose results have no sentences.
        MissingInputError: it is not finished.
    """
    record = require_json(folder / RESULTS_FILE, "finish the run, or name another workdir")
    page = (folder / RESULTS_FILE).with_suffix(".md").read_text(encoding="utf-8")
    lines = page.splitlines()
    scored, baselines = record["results"], [_of_baseline(row) for row in record["baselines"]]
    protocols = tuple(f"- {name}: " for name in (*(entry["protocol"] for entry in scored), *record.get("left_out", ())))
    texts = {
        "demo": "\n".join(line for line in lines if line.startswith("|")),
        "demo sentences": "\n".join(line for line in lines if line.startswith("- ") and not line.startswith(protocols)),
        "demo machine": _measured(record, _duration(record, [folder])),
        "demo baselines": _short_table(baselines),
    }
    if not texts["demo sentences"]:
        raise InputError(f"{folder}: its results.md has no sentences, as earlier versions wrote it: run it again.")
    for protocol in dict.fromkeys(entry["protocol"] for entry in scored):
        rows = [entry for entry in (*scored, *baselines) if entry["protocol"] == protocol]
        texts[f"demo {protocol}"] = _short_table(rows)
    return texts


def of_ablation(folder: Path) -> dict[str, str]:
    """Returns the text of each block about an ablation.

    Args:
        folder: its workdir, which holds ROW/SEED.

    Raises:
        MissingInputError: no run of it is finished.
    """
    cells = _cells(folder)
    if not cells:
        raise MissingInputError(f"no finished run in {folder}: run `deskpro ablate`, or name another workdir.")
    scores = {cell: _scores(cell.folder) for cell in cells}
    last = max((require_json(cell.folder / RESULTS_FILE, "") for cell in cells), key=lambda record: record["date"])
    runs = f"{len(cells)} runs" if len(cells) > 1 else "One run"
    texts = {"ablation machine": _measured(last, _duration(last, [cell.folder for cell in cells]), runs)}
    for protocol in protocols_of(scores):
        texts[f"ablation {protocol}"] = _ablation_table(cells, scores, protocol)
        named = f"{protocol}: "
        claims = [line.removeprefix(named) for line in check_claims(TABLE_3, scores) if line.startswith(named)]
        texts[f"ablation findings {protocol}"] = "\n".join(f"- {line}" for line in claims) or "No finding is tested."
    if (folder / "csa_att/0").is_dir() and (folder / "csa/0").is_dir():
        texts["ablation attention"] = _attention(folder)
    return texts


def _cells(folder: Path) -> list[Cell]:
    return [
        Cell(row, int(path.parent.name), path.parent, ())
        for row in TABLE_3.rows
        for path in sorted((folder / row.name).glob(f"[0-9]*/{RESULTS_FILE}"))
    ]


def _scores(folder: Path) -> dict[str, dict[str, float]]:
    """Returns R-1 and mAP of a run by protocol, of both streams together where there are two."""
    scores: dict[str, dict[str, float]] = {}
    for entry in require_json(folder / RESULTS_FILE, "run it again")["results"]:
        if entry["protocol"] not in scores or entry["stream"] == BOTH:
            scores[entry["protocol"]] = {name: float(entry[name]) for name in FIGURES}
    return scores


def _ablation_table(cells: Sequence[Cell], scores: Scores, protocol: str) -> str:
    rows = [row for row in TABLE_3.rows if any(cell.row == row for cell in cells)]
    lines = [["row", "model", *FIGURES, *(f"paper {name}" for name in FIGURES)], ["---"] * 2 + ["---:"] * 4]
    for row in rows:
        values = [str(figure(scores, row.name, protocol, name)) for name in FIGURES]
        lines.append([f"`{row.name}`", row.label, *values, *(f"{value:.1f}" for value in row.paper or ())])
    return _table(lines)


def _attention(folder: Path) -> str:
    """Returns a sentence with the attention on clothing and elsewhere, with and without L_att."""
    means = []
    for row in ("csa_att", "csa"):
        record = read_record(folder / row / "0")
        trained, note = open_networks(record)
        own = folder / "data"
        opened = open_data(record, trained, note, name=None, data_dir=str(own) if own.is_dir() else None, protocol=None)
        means.append(attention.attention_maps(trained, opened.config, opened.query, np.zeros(0, np.int64)))
    with_loss, without = means
    return (
        f"The attention of seed 0 lets through {with_loss.clothing:.2f} of the clothing and {with_loss.elsewhere:.2f}"
        f" of everything else with L_att, {without.clothing:.2f} and {without.elsewhere:.2f} without, on"
        f" {with_loss.measured} photos."
    )


def _short_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [["stream", "mAP", *_RANKS], ["---"] + ["---:"] * 5]
    lines += [[row["stream"], *(_percent(row.get(name)) for name in ("mAP", *_RANKS))] for row in rows]
    return _table(lines)


def _of_baseline(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a baseline in the form of a result."""
    return {"protocol": row["protocol"], "stream": row["stream"], "mAP": row["map"], **row["ranks"]}


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _measured(record: Mapping[str, Any], seconds: float | None, runs: str = "") -> str:
    """Returns in a sentence where and with what a run was made, and how long it took where that is known."""
    about = machine.describe()
    versions, date = record["versions"], record["date"][:10]
    where = f"{about['cores']} cores of the processor {about['processor']}"
    with_ = f"Python {versions['python']}, jax {versions['jax']}, deskpro_jax {versions['deskpro_jax']}"
    devices = sorted({name for name in record["devices"] if not name.startswith("cpu")})
    if devices:
        where += f" with {len(record['devices'])} x {devices[0]}"
    took = f", in {_words(seconds)}" if seconds is not None else ""
    return f"{f'{runs}, on ' if runs else 'On '}{where} ({with_}, {date}){took}."


def _duration(record: Mapping[str, Any], folders: Sequence[Path]) -> float | None:
    """Returns the seconds from the start of a run to its results; None unless it was made in one go.

    A run writes its configuration when it starts, so the first metrics of one that went on are older.
    """
    starts = []
    for folder in folders:
        start = (folder / CONFIG_FILE).stat().st_mtime
        if any(_first_time(path) < start - 1 for path in folder.glob(f"*/{METRICS_FILE}")):
            return None
        starts.append(start)
    seconds = datetime.datetime.fromisoformat(record["date"]).timestamp() - min(starts)
    return seconds if seconds > 0 else None


def _first_time(path: Path) -> float:
    with path.open(encoding="utf-8") as lines:
        return float(json.loads(next(lines))["time"])


def _words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 120:
        return f"{round(seconds / 60)} minutes"
    return f"{minutes} minutes {rest} seconds" if minutes else f"{rest} seconds"
