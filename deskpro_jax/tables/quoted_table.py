"""Published figures as Markdown: a table for each dataset, with protocols and sources."""

from __future__ import annotations

from collections.abc import Sequence

from deskpro_jax.tables.quoted import QuotedRow, QuotedTable, Scores

_FIGURES = ("R-1", "R-5", "mAP")


def quoted_columns(table: QuotedTable) -> tuple[list[str], list[list[str]]]:
    """Returns the heads of a table of published figures and its rows, as text; without columns that are empty."""
    columns = [
        (setting, figure)
        for setting in table.settings
        for figure in _FIGURES
        if any(_value(row.scores[setting], figure) is not None for row in table.rows)
    ]
    heads = ["method", "published in", *(f"{setting} {figure}".strip() for setting, figure in columns)]
    heads += ["protocol", "checkpoint", "quoted from"]
    return heads, [_cells(row, columns) for row in table.rows]


def quoted_markdown(tables: Sequence[QuotedTable], level: int = 3) -> str:
    """Returns published figures as Markdown, each dataset under a heading of `level`."""
    return "\n".join(_section(table, level) for table in tables)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> str:
    """Returns a table as Markdown.

    Args:
        heads: of the columns.
        rows: their cells.
        right: heads of the columns that are aligned to the right.
    """
    rules = ["---:" if head in right else "---" for head in heads]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (heads, rules, *rows))


def _section(table: QuotedTable, level: int) -> str:
    heads, rows = quoted_columns(table)
    text = f"{'#' * level} {table.title}\n\n"
    text += "As published, in percent; `-` is not reported. None of these figures was measured here.\n\n"
    text += markdown_table(heads, rows, heads[2:-3])
    return text + "".join(f"\n{remark}\n" for remark in table.remarks)


def _cells(row: QuotedRow, columns: Sequence[tuple[str, str]]) -> list[str]:
    values = [_value(row.scores[setting], figure) for setting, figure in columns]
    figures = ["-" if value is None else f"{value:.1f}" for value in values]
    return [row.method.name, row.method.venue, *figures, row.protocol, row.method.checkpoint, row.source]


def _value(scores: Scores, figure: str) -> float | None:
    return {"R-1": scores.r1, "R-5": scores.r5, "mAP": scores.map}[figure]
