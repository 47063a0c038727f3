"""Command line: trains and scores several methods alike, and writes the table beside their published figures.

deskpro compare --config configs/synthetic.py:random --methods deskpro,lmbn,pcb --seeds 3 --workdir runs/compared
deskpro compare --published prcc
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deskpro_jax.cli.commands import command_parser
from deskpro_jax.cli.table_runs import (
    add_run_flags,
    check_places,
    finish_cells,
    names_in,
    report_failures,
    unknown_flag,
)
from deskpro_jax.config.reading import read_config
from deskpro_jax.data.opening import build_data
from deskpro_jax.errors import InputError, end_command
from deskpro_jax.report.comparison import render_comparison
from deskpro_jax.report.page import require_jinja
from deskpro_jax.storage.files import write_text
from deskpro_jax.tables import comparison_text
from deskpro_jax.tables.comparison import comparison_table, gather
from deskpro_jax.tables.costs import measure_apart, read_costs
from deskpro_jax.tables.plan import Cell, plan_cells, read_scores
from deskpro_jax.tables.quoted import TABLES, require_quoted
from deskpro_jax.tables.quoted_table import quoted_markdown
from deskpro_jax.tables.run import run_cells, say, was_refused

_ENDINGS = (".md", ".tex", ".csv", ".html")
# Whatever a recipe says: a mean average precision is integrated in one way in one table.
_INTEGRATION = "--config.eval.average_precision"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains and scores several methods alike, each by its recipe, and writes the table; returns the exit code."""
    parser = command_parser("compare", main.__doc__)
    add_run_flags(parser, required=False)
    parser.add_argument("--methods", metavar="NAMES", help="variants that train the methods, joined by commas")
    parser.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="NAMES=FILE",
        help="weights that the photo networks of these methods start from; for several files give it several times",
    )
    parser.add_argument("--out", type=Path, help="path of the table without ending (default: WORKDIR/comparison)")
    parser.add_argument(
        "--published",
        nargs="?",
        const="",
        metavar="DATASET",
        help="only print published figures: of a dataset, of that of --config, or all",
    )
    options, more = parser.parse_known_args(arguments)
    if error := unknown_flag(more):
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.published is not None:
        return end_command(lambda: _print_published(options, more))
    return end_command(lambda: _run(options, more), "interrupted; the same command continues from there.")


def _print_published(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    dataset = options.published
    if not dataset and options.config:
        dataset = read_config(options.config, overrides).data.name
    print(quoted_markdown([require_quoted(dataset)] if dataset else TABLES), end="")
    return 0


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from deskpro_jax.experiment import validate

    for flag in ("config", "methods", "workdir"):
        if getattr(options, flag) is None:
            raise InputError(f"--{flag} is missing: --help shows examples; --published needs none of them.")
    require_jinja()
    table = comparison_table(names_in(options.methods), options.start)
    stem = check_places(options.workdir, options.out, "comparison", _ENDINGS)
    same = [] if any(flag.startswith(_INTEGRATION) for flag in overrides) else [f"{_INTEGRATION}=step"]
    cells, _ = plan_cells(
        table, table.rows, options.config, [*overrides, *same], options.seeds, options.workdir, rows_first=True
    )
    validate(read_config(options.config, overrides))
    problems: dict[str, str] = {}
    for cell in cells[: len(table.rows)]:
        try:
            validate(cell.configuration)  # before hours of other runs
        except InputError as error:
            problems[cell.row.name] = f"not trained: {error}"
            say(f"note: {cell.row.name} is not trained: {error}")
    runnable = [cell for cell in cells if cell.row.name not in problems]
    if not runnable:
        raise InputError(f"none of --methods can be trained; {next(iter(problems.values()))}")
    title = f"Comparison: {' '.join([options.config, *overrides])}"
    failed: dict[Cell, str] = {}

    def run(cells: Sequence[Cell], folder: Path, jobs: int) -> dict[Cell, str]:
        failed.update(run_cells(cells, folder, jobs))
        problems.update({cell.row.name: _problem(reason, was_refused(reason)) for cell, reason in failed.items()})
        _measure(cells)
        return failed

    def write() -> None:
        _write(cells, problems, stem, title)

    finish_cells(runnable, options.workdir, options.jobs, write, run=run, build=build_data)
    print(stem.with_name(f"{stem.name}.md").read_text(encoding="utf-8"), end="")
    say(f"written: {', '.join(str(stem) + ending for ending in _ENDINGS)}")
    refused = {cell: reason for cell, reason in failed.items() if was_refused(reason)}
    if len(failed) == len(runnable):
        return report_failures(failed, runnable)  # nothing to compare
    return report_failures({cell: reason for cell, reason in failed.items() if cell not in refused}, runnable)


def _problem(reason: str, refused: bool) -> str:
    """Returns why runs of a method are missing, without the path of a log."""
    text = re.sub(r" \(exit code .*", "", reason.removeprefix("error: "))
    return f"{'not trained' if refused else 'failed'}: {text}"


def _measure(cells: Sequence[Cell]) -> None:
    """Measures what embedding costs with a finished run of each method, one after the other."""
    measured = set()
    for cell in cells:
        if cell.row.name in measured or read_scores(cell) is None:
            continue
        measured.add(cell.row.name)
        if read_costs(cell.folder) is None:
            say(f"measuring {cell.row.name}")
            if problem := measure_apart(cell.folder):
                say(f"note: parameters and speed of {cell.row.name} are not measured: {problem}")


def _write(cells: Sequence[Cell], problems: Mapping[str, str], stem: Path, title: str) -> None:
    """Writes the comparison of the finished cells."""
    scores = {cell: found for cell in cells if (found := read_scores(cell)) is not None}
    comparison = gather(cells, scores, problems, title)
    texts = {
        ".md": comparison_text.markdown(comparison),
        ".tex": comparison_text.latex(comparison),
        ".csv": comparison_text.to_csv(comparison),
        ".html": render_comparison(comparison),
    }
    for ending, text in texts.items():
        write_text(stem.with_name(stem.name + ending), text)
