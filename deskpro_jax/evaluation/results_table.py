"""Results as a table: on the terminal, and as Markdown for a README or a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import rich.table

_RANKS = ("R-1", "R-5", "R-10", "R-20")
_HEADS = ("protocol", "stream", "mAP", *_RANKS, "counted", "dropped")
_TEXT_COLUMNS = 2


class ResultRow(NamedTuple):
    """One line of results: fractions in [0, 1] (NaN where nothing was counted) and counts of queries."""

    protocol: str
    stream: str
    map: float
    ranks: Mapping[str, float]  # "R-1", "R-5", "R-10", "R-20"; one that is absent shows as "-"
    counted: int
    dropped: int
    deviations: Mapping[str, float] = MappingProxyType({})  # "mAP", "R-1", ...: shown after the figure they belong to
    average_precision: str = "step"  # `eval.average_precision`


def results_table(rows: Iterable[ResultRow], title: str | None = None) -> rich.table.Table:
    """Returns a table for `rich.print`, figures in percent, as "62.5 ± 1.3" where there is a deviation.

    Args:
        rows: one for each protocol and stream.
        title: printed above.
    """
    rows = list(rows)
    table = rich.table.Table(title=title)
    for i, head in enumerate(_heads(rows)):
        table.add_column(head, justify="left" if i < _TEXT_COLUMNS else "right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def results_markdown(rows: Iterable[ResultRow]) -> str:
    """Returns the same table as Markdown, ending in a line break."""
    rules = ["---"] * _TEXT_COLUMNS + ["---:"] * (len(_HEADS) - _TEXT_COLUMNS)
    rows = list(rows)
    lines = [_heads(rows), rules, *(_cells(row) for row in rows)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def map_name(average_precision: str) -> str:
    """Returns what a column of mean average precisions is called: how they are integrated is said unless "step"."""
    return "mAP" if average_precision == "step" else f"mAP ({average_precision})"


def _heads(rows: Iterable[ResultRow]) -> list[str]:
    """Returns the heads; the rows of a table are of one evaluation."""
    name = map_name(next((row.average_precision for row in rows), "step"))
    return [name if head == "mAP" else head for head in _HEADS]


def _cells(row: ResultRow) -> list[str]:
    figures = {"mAP": row.map, **{rank: row.ranks.get(rank, math.nan) for rank in _RANKS}}
    percent = [_percent(figure, row.deviations.get(name)) for name, figure in figures.items()]
    return [row.protocol, row.stream, *percent, str(row.counted), str(row.dropped)]


def _percent(figure: float, deviation: float | None) -> str:
    if math.isnan(figure):
        return "-"
    return f"{100 * figure:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
