"""Command line: trains and scores the rows of the paper's Table 3 with several seeds, and writes the table.

python -m deskpro_jax.ablate --config configs/synthetic.py --seeds 3 --workdir runs/ablation
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from deskpro_jax.cli.arguments import positive
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.data.opening import build_data
from deskpro_jax.errors import MissingInputError, end_command
from deskpro_jax.storage.files import check_writable, write_text
from deskpro_jax.storage.locks import locked
from deskpro_jax.tables.deskpro import TABLE_3
from deskpro_jax.tables.plan import Cell, plan_cells, read_scores
from deskpro_jax.tables.run import default_jobs, run_cells, say
from deskpro_jax.tables.table import check_claims, latex, markdown

_TABLE = "ablation"
_LOCK_SECONDS = 20.0  # an interrupted table leaves runs that still save their state


def write_table(cells: Sequence[Cell], stem: Path, title: str) -> list[str]:
    """Writes the table of the finished cells as `STEM.md` and `STEM.tex`; returns whether the paper's findings hold."""
    scores = {cell: found for cell in cells if (found := read_scores(cell)) is not None}
    write_text(stem.with_name(f"{stem.name}.md"), markdown(TABLE_3, cells, scores, title))
    write_text(stem.with_name(f"{stem.name}.tex"), latex(TABLE_3, cells, scores, title))
    return check_claims(TABLE_3, scores)


def _only_ablation(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps a second ablation out of a folder, also while a run that outlives this process still saves."""
    conflict = f"another process is at work in {folder}: wait for it, or end it."
    return locked(folder / ".lock", conflict, seconds=_LOCK_SECONDS, inherited=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rows of the paper's Table 3 and writes the table; returns the exit code."""
    parser = command_parser("ablate", main.__doc__)
    parser.allow_abbrev = False  # --config.FIELD=VALUE is no flag of this parser
    parser.add_argument(
        "--config",
        required=True,
        help="configuration, optionally with ':variant'; --config.FIELD=VALUE sets a field for all runs",
    )
    parser.add_argument("--workdir", required=True, type=Path, help="folder; each run's workdir is ROW/SEED in it")
    parser.add_argument(
        "--seeds", type=positive, default=3, help="number of seeds, from the configuration's (default: 3)"
    )
    parser.add_argument(
        "--rows",
        default=",".join(row.name for row in TABLE_3.rows),
        help="some of %(default)s, joined by commas (default: all)",
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        help="runs side by side, which share the CPU cores (default: one per core, at most 4; 1 with an accelerator)",
    )
    parser.add_argument(
        "--joint",
        action="store_true",
        help="train both streams of the last three rows together, instead of taking them from the rows with one stream",
    )
    parser.add_argument("--out", type=Path, help="path of the table without ending (default: WORKDIR/ablation)")
    options, more = parser.parse_known_args(arguments)
    if strange := [flag for flag in more if not (flag.startswith("--config.") and "=" in flag)]:
        print(f"error: unknown argument {strange[0]!r}; fields are set as --config.FIELD=VALUE.", file=sys.stderr)
        return 2
    return end_command(lambda: _run(options, more), "interrupted; the same command continues from there.")


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from deskpro_jax.experiment import validate

    stem = options.workdir / _TABLE if options.out is None else options.out
    if options.out is not None and not stem.absolute().parent.is_dir():
        raise MissingInputError(f"no folder {stem.absolute().parent}: create it, or correct --out.")
    for folder in (options.workdir, stem.absolute().parent):
        check_writable(folder, "give another --workdir or --out, or correct its permissions")
    if stem.suffix in (".md", ".tex"):
        stem = stem.with_suffix("")
    rows = TABLE_3.choose([name.strip() for name in options.rows.split(",") if name.strip()])
    cells, notes = plan_cells(
        TABLE_3, rows, options.config, overrides, options.seeds, options.workdir, joint=options.joint
    )
    for note in notes:
        say(f"note: {note}")
    for cell in cells[: len(cells) // options.seeds]:
        validate(cell.configuration)  # before hours of other runs
    options.workdir.mkdir(parents=True, exist_ok=True)
    title = f"Ablation: {' '.join([options.config, *overrides])}"
    with _only_ablation(options.workdir):
        try:
            jobs = options.jobs or 1
            if any(read_scores(cell) is None for cell in cells):
                build_data(cells[0].configuration, cells[0].folder)  # by one, before several use it
                jobs = options.jobs or default_jobs()
            failed = run_cells(cells, options.workdir, jobs=jobs)
        finally:
            findings = write_table(cells, stem, title)
    print((stem.with_name(f"{stem.name}.md")).read_text(encoding="utf-8"), end="")
    note = "" if findings else "; these rows do not test the paper's findings"
    say(f"written: {stem}.md, {stem}.tex{note}")
    if failed:
        print(f"error: {len(failed)} of {len(cells)} runs failed; the same command tries them again:", file=sys.stderr)
        for cell, reason in failed.items():
            print(f"  {cell.name}: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
