"""Results files as rows of a table: percentages, what a protocol means, what was left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from deskpro_jax.evaluation.protocols import RERANKED
from deskpro_jax.evaluation.results_table import map_name

FIGURES = ("mAP", "R-1", "R-5", "R-10", "R-20")
_STEP = "step"  # `eval.average_precision` where a results file does not say


class Row(NamedTuple):
    """A stream under a protocol, or a baseline: figures in percent as text, counts of queries."""

    protocol: str
    stream: str
    kind: str  # "", "re-ranked" or "baseline"
    figures: list[str]
    gallery: str
    counted: str
    dropped: str
    reasons: str  # why queries were dropped


class Results(NamedTuple):
    """What a results file says.

    Attributes:
        file: its name.
        title: dataset, checkpoint, and what the networks were trained on where that was another dataset.
        rows: of its table.
        notes: protocol -> what it means, or why it was left out.
        date: when it was written.
        figures: names of the columns of figures; that of the mAP says how it is integrated, unless as usual.
    """

    file: str
    title: str
    rows: list[Row]
    notes: dict[str, str]
    date: str
    figures: tuple[str, ...] = FIGURES


def read_results(file: str, record: Mapping[str, Any], checkpoint: str) -> Results:
    """Returns the table of a results file.

    Args:
        file: its name.
        record: its content.
        checkpoint: the checkpoint in words, see `checkpoint_of`.
    """
    title = f"{record.get('dataset', 'unknown dataset')}, {checkpoint}"
    trained_on = record.get("trained_on")
    if trained_on != record.get("dataset"):
        title += f", networks trained on {trained_on or 'another dataset'}"
    results = entries(record)
    rows = [_row(entry) for entry in results]
    rows += [_baseline(entry) for entry in record.get("baselines") or () if isinstance(entry, Mapping)]
    notes = {str(entry.get("protocol")): str(entry.get("description", "")) for entry in results}
    for name, reason in dict(record.get("left_out") or {}).items():
        notes[str(name)] = f"left out: {str(reason).removeprefix(f'protocol {name!r}: ')}"
    figures = (map_name_of(results[0]) if results else FIGURES[0], *FIGURES[1:])
    return Results(file, title, rows, notes, str(record.get("date", "")), figures)


def map_name_of(entry: Mapping[str, Any]) -> str:
    """Returns what the mAP of an entry of a results file is called."""
    return map_name(str(entry.get("average_precision", _STEP)))


def entries(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the results in a results file, one for each stream under each protocol."""
    return [entry for entry in record.get("results") or () if isinstance(entry, Mapping)]


def checkpoint_of(record: Mapping[str, Any]) -> str:
    """Returns in words which checkpoints a results file is of."""
    entry = dict(record.get("checkpoint") or {})
    said = [f"checkpoint: {entry.pop('report', 'unknown')}"]
    for phase, step in entry.items():
        steps = ", ".join(f"{stream} {at}" for stream, at in step.items()) if isinstance(step, Mapping) else step
        said.append(f"{phase} step {steps}")
    return ", ".join(said)


def _row(entry: Mapping[str, Any]) -> Row:
    deviations = dict(entry.get("std") or {})
    dropped = dict(entry.get("dropped") or {})
    name = str(entry.get("protocol"))
    kind = "re-ranked" if name.endswith(RERANKED) or "rerank" in entry else ""
    return Row(
        name,
        str(entry.get("stream")),
        kind,
        [percent(entry.get(figure), deviations.get(figure)) for figure in FIGURES],
        str(entry.get("gallery", "-")),
        str(entry.get("counted", "-")),
        str(sum(dropped.values())),
        "; ".join(f"{count} {reason}" for reason, count in dropped.items()),
    )


def _baseline(entry: Mapping[str, Any]) -> Row:
    ranks, deviations = dict(entry.get("ranks") or {}), dict(entry.get("deviations") or {})
    shares = {"mAP": entry.get("map"), **ranks}
    figures = [percent(shares.get(figure), deviations.get(figure)) for figure in FIGURES]
    counted, dropped = (str(entry.get(name, "-")) for name in ("counted", "dropped"))
    return Row(str(entry.get("protocol")), str(entry.get("stream")), "baseline", figures, "-", counted, dropped, "")


def percent(fraction: Any, deviation: Any = None) -> str:
    """Returns a fraction in percent with one decimal, "-" where there is none."""
    if not isinstance(fraction, (int, float)) or math.isnan(fraction):
        return "-"
    return f"{100 * fraction:.1f}" + (f" ± {100 * deviation:.1f}" if isinstance(deviation, (int, float)) else "")
