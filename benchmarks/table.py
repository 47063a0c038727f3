"""Shows files of results as tables, and compares two of them.

python -m benchmarks.table NEW.json                      # on the terminal
python -m benchmarks.table NEW.json --markdown           # for a page of the documentation
python -m benchmarks.table NEW.json --against OLD.json   # new over old, and what is beyond the spread
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.console
import rich.table

from benchmarks import figures, results
from benchmarks.results import METRICS, Measurement, Report
from deskpro_jax.errors import InputError, MissingInputError, exit_code

_SAMPLES = 3  # fewer have no spread to speak of


@dataclass(frozen=True)
class Table:
    """A table of texts; `texts` columns from the left are words, the rest figures."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 2


def tables(report: Report) -> list[Table]:
    """Returns for each benchmark what was measured, by case and entrant, and ours over the others'."""
    found = []
    for name in dict.fromkeys(m.benchmark for m in report.measurements):
        mine = [m for m in report.measurements if m.benchmark == name]
        metrics = tuple(metric for metric in METRICS if any(m.metric == metric for m in mine))
        rows: dict[tuple[str, str], dict[str, Measurement]] = {}
        for m in mine:
            rows.setdefault((m.case, m.entrant), {})[m.metric] = m
        lines = [(*row, *(_cell(by_metric.get(metric)) for metric in metrics)) for row, by_metric in rows.items()]
        found.append(Table(name, ("case", "what", *metrics), tuple(lines)))
        quotients = [
            (
                r.case,
                r.over,
                r.metric,
                figures.shown(r.samples, ""),
                "more" if METRICS[r.metric].more_is_better else "less",
            )
            for r in report.ratios
            if r.benchmark == name
        ]
        if quotients:
            heads = ("case", "deskpro_jax over", "metric", "ratio", "better is")
            found.append(Table(f"{name}: ratios", heads, tuple(quotients), 3))
    return found


def comparison(new: Report, old: Report) -> Table:
    """Returns new over old for everything that both measured; says where the ranges of the samples do not meet."""
    before = {m.key: m for m in old.measurements}
    rows = []
    for m in new.measurements:
        other = before.get(m.key)
        if other is None or not other.median or not METRICS[m.metric].unit:
            continue
        unit = METRICS[m.metric].unit
        row = (
            *(m.benchmark, m.case, m.entrant, m.metric),
            *(figures.shown(other.samples, unit), figures.shown(m.samples, unit)),
            *(f"{m.median / other.median:.3f}", _verdict(m, other)),
        )
        rows.append(row)
    heads = ("benchmark", "case", "what", "metric", "before", "now", "now / before", "")
    return Table("against", heads, tuple(rows), 4)


def _verdict(new: Measurement, old: Measurement) -> str:
    if min(len(new.samples), len(old.samples)) < _SAMPLES:
        return "no spread known"
    (low, high), (old_low, old_high) = new.range, old.range
    if low <= old_high and old_low <= high:
        return "within the spread"
    return "BETTER" if (low > old_high) == METRICS[new.metric].more_is_better else "WORSE"


def _cell(measurement: Measurement | None) -> str:
    return "" if measurement is None else figures.shown(measurement.samples, METRICS[measurement.metric].unit)


def where(report: Report) -> str:
    """Returns a line on the machine, the date and the load."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = machine["memory_bytes"] / 2**30
    cards = "".join(f", {card}" for card in machine["accelerators"])
    load = " to ".join(f"{value:.1f}" for value in (machine["load"][0], machine.get("load_after", machine["load"])[0]))
    return (
        f"{machine['processor']}, {machine['cores']} cores of which {report.settings['threads']} used, {memory:.0f} GiB"
        f"{cards}; Python {machine['python']}, {versions}; load {load}; {machine['date'][:10]}"
        + (f"; commit {machine['commit']}" if machine.get("commit") else "")
        + ("; QUICK: sizes of a test, the figures mean nothing" if report.settings["quick"] else "")
    )


def markdown(report: Report, against: Report | None = None) -> str:
    """Returns all tables as Markdown."""
    lines = []
    for table in [*tables(report), *([comparison(report, against)] if against else [])]:
        rules = ["---"] * table.texts + ["---:"] * (len(table.heads) - table.texts)
        lines += [f"### {table.title}", ""]
        lines += [f"| {' | '.join(cells)} |" for cells in (table.heads, rules, *table.rows)]
        lines += [""]
    lines += [f"{name}: not measured, {why.splitlines()[0]}" for name, why in report.failures.items()]
    lines += [*report.notes, where(report)]
    return "\n".join(lines) + "\n"


def show(report: Report, console: rich.console.Console, against: Report | None = None) -> None:
    """Prints all tables."""
    for table in [*tables(report), *([comparison(report, against)] if against else [])]:
        shown = rich.table.Table(title=table.title, title_justify="left")
        for i, head in enumerate(table.heads):
            shown.add_column(head, justify="left" if i < table.texts else "right", no_wrap=True)
        for row in table.rows:
            shown.add_row(*row)
        wanted = console.measure(shown, options=console.options.update(max_width=10_000)).maximum
        console.width = max(console.width, wanted)
        console.print(shown, markup=False, highlight=False)
    for line in (*report.notes, where(report)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Shows a file of results, on the terminal or as Markdown; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=main.__doc__)
    parser.add_argument("file", type=Path, help="what benchmarks.run --out wrote")
    parser.add_argument("--against", type=Path, metavar="OTHER.json", help="compare with an earlier file")
    parser.add_argument("--markdown", action="store_true", help="Markdown in place of tables for a terminal")
    options = parser.parse_args(arguments)
    try:
        report = results.read(options.file)
        against = results.read(options.against) if options.against else None
    except (InputError, MissingInputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    if options.markdown:
        print(markdown(report, against), end="")
    else:
        show(report, rich.console.Console(), against)
    return 0


if __name__ == "__main__":
    sys.exit(main())
