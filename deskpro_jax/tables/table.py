"""A table as Markdown and LaTeX: mean and deviation over seeds beside published figures, and which claims hold."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deskpro_jax.evaluation.results_table import map_name
from deskpro_jax.tables.plan import Cell
from deskpro_jax.tables.spec import Claim, Row, Table

Scores = Mapping[Cell, Mapping[str, Mapping[str, float]]]  # finished cell -> protocol -> "mAP" and "R-1", in [0, 1]
FIGURES = ("R-1", "mAP")  # in the paper's order


class Figure(NamedTuple):
    """A score over seeds: mean and sample standard deviation in percent (None of one seed), and how many seeds."""

    mean: float
    spread: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.spread is None else f" ± {self.spread:.1f}")


def protocols_of(scores: Scores) -> tuple[str, ...]:
    """Returns the protocols that finished cells report, in their order."""
    return tuple(dict.fromkeys(name for found in scores.values() for name in found))


def figure(scores: Scores, row: str, protocol: str, name: str) -> Figure | None:
    """Returns a score of a row, None where no seed is finished.

    Args:
        scores: of the finished cells.
        row: name of the row.
        protocol: name of the protocol.
        name: "mAP" or "R-1".
    """
    values = [
        100 * found[protocol][name] for cell, found in scores.items() if cell.row.name == row and protocol in found
    ]
    if not values:
        return None
    return Figure(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def check_claims(table: Table, scores: Scores) -> list[str]:
    """Returns a line for each finding of the table under each protocol: whether it holds, by mAP, with the figures."""
    lines = []
    for protocol in protocols_of(scores):
        for claim in table.claims:
            found = {row: figure(scores, row, protocol, "mAP") for row in (claim.above, *claim.below)}
            if any(value is None for value in found.values()):
                continue
            lines.append(f"{protocol}: {claim.text}: {_verdict(scores, claim, protocol)}")
    return lines


def _verdict(scores: Scores, claim: Claim, protocol: str) -> str:
    figures, holds = [], True
    above = figure(scores, claim.above, protocol, "mAP")
    for row in claim.below:
        below = figure(scores, row, protocol, "mAP")
        assert above is not None  # the caller looked
        assert below is not None
        holds &= above.mean > below.mean
        figures.append(f"{row} {below}")
    by_seed: dict[int, dict[str, float]] = {}
    for cell, found in scores.items():
        if protocol in found:
            by_seed.setdefault(cell.seed, {})[cell.row.name] = found[protocol]["mAP"]
    whole = [one for one in by_seed.values() if {claim.above, *claim.below} <= one.keys()]
    seeds = sum(all(one[claim.above] > one[row] for row in claim.below) for one in whole)
    word = "holds" if holds else "does not hold"
    return f"{word} (mAP: {claim.above} {above}; {', '.join(figures)}; in {seeds} of {len(whole)} seeds)"


def rows_of(table: Table, cells: Sequence[Cell]) -> list[Row]:
    """Returns the rows of some cells, in the table's order."""
    return [row for row in table.rows if any(cell.row == row for cell in cells)]


def label_of(row: Row, cells: Sequence[Cell]) -> str:
    """Returns the label of a row; one whose mAP is integrated in another way than usual says so."""
    rule = next((cell.config.get("eval.average_precision", "step") for cell in cells if cell.row == row), "step")
    return row.label if rule == "step" else f"{row.label}, {map_name(rule)}"


def markdown(table: Table, cells: Sequence[Cell], scores: Scores, title: str) -> str:
    """Returns the table as Markdown, with the paper's figures and the findings.

    Args:
        table: the table.
        cells: all cells of the table.
        scores: of the finished cells.
        title: the command.
    """
    protocols = protocols_of(scores)
    heads = ["row", "model", *table.components]
    heads += [f"{protocol} {name}" for protocol in protocols for name in FIGURES]
    heads += [f"paper {name}" for name in FIGURES]
    lines = [
        heads,
        ["---", "---", *[":---:"] * len(table.components), *["---:"] * (len(heads) - 2 - len(table.components))],
    ]
    for row in rows_of(table, cells):
        marks = ["✓" if part in row.parts else "" for part in table.components]
        found = [figure(scores, row.name, protocol, name) for protocol in protocols for name in FIGURES]
        values = ["-" if value is None else str(value) for value in found]
        lines.append([row.name, label_of(row, cells), *marks, *values, *_published(row)])
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return f"{title}\n\n{text}\n{_legend(table, cells, scores)}\n\n" + "".join(
        f"- {line}\n" for line in check_claims(table, scores)
    )


def _published(row: Row) -> list[str]:
    return [f"{value:.1f}" for value in row.paper or ()]


def _legend(table: Table, cells: Sequence[Cell], scores: Scores) -> str:
    seeds = len({cell.seed for cell in cells})
    text = (
        f"Percent; mean ± sample standard deviation over {seeds} seeds." if seeds > 1 else "Percent; one seed."
    ) + f" The paper's columns: {table.source}."
    short = [row for row in rows_of(table, cells) if sum(cell.row == row for cell in scores) < seeds]
    if short:
        counts = ", ".join(f"{row.name} {sum(cell.row == row for cell in scores)}" for row in short)
        text += f" Finished seeds where not all {seeds} are: {counts}."
    return text


def latex(table: Table, cells: Sequence[Cell], scores: Scores, title: str) -> str:
    """Returns the table for LaTeX; it needs the packages booktabs and amssymb. Arguments as of `markdown`."""
    protocols = protocols_of(scores)
    columns = "l" + "c" * len(table.components) + "r" * (2 * len(protocols) + 2)
    first, second = 2 + len(table.components), []
    groups = [*(escape(protocol) for protocol in protocols), "paper"]
    for i in range(len(groups)):
        second.append(rf"\cmidrule(lr){{{first + 2 * i}-{first + 2 * i + 1}}}")
    heads = " & ".join(rf"\multicolumn{{2}}{{c}}{{{name}}}" for name in groups)
    lines = [
        rf"% {title}",
        rf"% {_legend(table, cells, scores)}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & " * len(table.components) + f" & {heads} \\\\",
        "".join(second),
        " & ".join(["Model", *table.components.values(), *FIGURES * len(groups)]) + r" \\",
        r"\midrule",
    ]
    for row in rows_of(table, cells):
        marks = [r"\checkmark" if part in row.parts else "" for part in table.components]
        found = [figure(scores, row.name, protocol, name) for protocol in protocols for name in FIGURES]
        values = ["--" if value is None else latex_figure(value) for value in found]
        lines.append(" & ".join([escape(label_of(row, cells)), *marks, *values, *_published(row)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_figure(value: Figure) -> str:
    """Returns a score for LaTeX, its spread in small type."""
    spread = "" if value.spread is None else rf" {{\scriptsize$\pm$ {value.spread:.1f}}}"
    return f"{value.mean:.1f}{spread}"


def escape(text: str) -> str:
    """Returns a text for LaTeX."""
    return "".join(f"\\{character}" if character in "_&%#$" else character for character in text)
