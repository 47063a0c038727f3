"""Command line: trains and scores the rows of the paper's Table 3 with several seeds, and writes the table.

python -m deskpro_jax.ablate --config configs/synthetic.py --seeds 3 --workdir runs/ablation
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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
from deskpro_jax.data.opening import build_data
from deskpro_jax.errors import end_command
from deskpro_jax.storage.files import write_text
from deskpro_jax.tables.deskpro import TABLE_3
from deskpro_jax.tables.plan import Cell, plan_cells, read_scores
from deskpro_jax.tables.run import run_cells, say
from deskpro_jax.tables.table import check_claims, latex, markdown


def write_table(cells: Sequence[Cell], stem: Path, title: str) -> list[str]:
    """Writes the table of the finished cells as `STEM.md` and `STEM.tex`; returns whether the paper's findings hold."""
    scores = {cell: found for cell in cells if (found := read_scores(cell)) is not None}
    write_text(stem.with_name(f"{stem.name}.md"), markdown(TABLE_3, cells, scores, title))
    write_text(stem.with_name(f"{stem.name}.tex"), latex(TABLE_3, cells, scores, title))
    return check_claims(TABLE_3, scores)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rows of the paper's Table 3 and writes the table; returns the exit code."""
    parser = command_parser("ablate", main.__doc__)
    add_run_flags(parser)
    parser.add_argument(
        "--rows",
        default=",".join(row.name for row in TABLE_3.rows),
        help="some of %(default)s, joined by commas (default: all)",
    )
    parser.add_argument(
        "--joint",
        action="store_true",
        help="train both streams of the last three rows together, instead of taking them from the rows with one stream",
    )
    parser.add_argument("--out", type=Path, help="path of the table without ending (default: WORKDIR/ablation)")
    options, more = parser.parse_known_args(arguments)
    if error := unknown_flag(more):
        print(f"error: {error}", file=sys.stderr)
        return 2
    return end_command(lambda: _run(options, more), "interrupted; the same command continues from there.")


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from deskpro_jax.experiment import validate

    stem = check_places(options.workdir, options.out, "ablation", (".md", ".tex"))
    rows = TABLE_3.choose(names_in(options.rows))
    cells, notes = plan_cells(
        TABLE_3, rows, options.config, overrides, options.seeds, options.workdir, joint=options.joint
    )
    for note in notes:
        say(f"note: {note}")
    for cell in cells[: len(cells) // options.seeds]:
        validate(cell.configuration)  # before hours of other runs
    title = f"Ablation: {' '.join([options.config, *overrides])}"
    findings: list[str] = []

    def write() -> None:
        findings[:] = write_table(cells, stem, title)

    failed = finish_cells(cells, options.workdir, options.jobs, write, run=run_cells, build=build_data)
    print((stem.with_name(f"{stem.name}.md")).read_text(encoding="utf-8"), end="")
    note = "" if findings else "; these rows do not test the paper's findings"
    say(f"written: {stem}.md, {stem}.tex{note}")
    return report_failures(failed, cells)


if __name__ == "__main__":
    sys.exit(main())
