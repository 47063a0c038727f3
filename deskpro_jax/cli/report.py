"""Command line: one HTML page that shows a run.

python -m deskpro_jax.report runs/celeb
python -m deskpro_jax.report runs/celeb --compare runs/celeb_without_attention_loss --out celeb.html
"""

from __future__ import annotations

import argparse
import logging as std_logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deskpro_jax.cli.arguments import count, positive
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.errors import InputError, end_command
from deskpro_jax.runtime.accelerators import warn_of_unused_gpu
from deskpro_jax.storage.files import check_writable, write_files

PAGE = "report.html"
IMAGES, RANKS = 240, 10


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("report", main.__doc__)
    parser.add_argument("workdir", type=Path, help="what deskpro_jax.main or deskpro_jax.convert wrote")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help=f"the page (default: WORKDIR/{PAGE})")
    parser.add_argument(
        "--images",
        type=count,
        default=IMAGES,
        metavar="N",
        help="most pictures on the page (default: %(default)s)",
    )
    parser.add_argument(
        "--ranks",
        type=positive,
        default=RANKS,
        metavar="K",
        help="most images per ranked list (default: %(default)s)",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="WORKDIR",
        help="another run, to compare attention maps with (Fig. 3)",
    )
    parser.add_argument("--stream", metavar="NAME", help="stream that ranks: face, body, ... or both (default: both)")
    parser.add_argument("--protocol", metavar="NAME", help="protocol of the rankings (default: the dataset's first)")
    parser.add_argument("--dataset", metavar="NAME", help="built dataset to show (default: the run's own)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of built datasets (default: that of the run)")
    parser.add_argument(
        "--quick", action="store_true", help="only curves, results and configuration: nothing is computed"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes one self-contained HTML page about a run: curves, results, rankings, attention; returns the exit code."""
    options = _parser().parse_args(arguments)
    std_logging.getLogger("absl").setLevel(std_logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    page = options.out or options.workdir / PAGE
    return end_command(lambda: _run(options, page), "interrupted; no page was written.")


def _run(options: argparse.Namespace, page: Path) -> int:
    if not options.quick:
        warn_of_unused_gpu()
    from deskpro_jax.report.charts import require_matplotlib
    from deskpro_jax.report.contents import Options, gather
    from deskpro_jax.report.page import render, require_jinja

    # What follows is checked before hours of computing.
    require_jinja()
    require_matplotlib()
    if page.is_dir():
        raise InputError(f"{page} is a folder; --out takes an HTML file.")
    check_writable(page.parent, "give the page another path (--out)")
    chosen = Options(
        images=options.images,
        ranks=options.ranks,
        stream=options.stream,
        protocol=options.protocol,
        dataset=options.dataset,
        data_dir=options.data_dir,
        compare=options.compare,
        quick=options.quick,
    )
    contents = gather(options.workdir, chosen)
    text = render(contents)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_files({page: text.encode()})
    for note in _missing(contents):
        print(f"note: {note}", file=sys.stderr)
    print(f"{page}: {contents['images']} pictures, {page.stat().st_size / 1e6:.1f} MB")
    return 0


def _missing(contents: Mapping[str, Any]) -> list[str]:
    notes = list(contents["problems"])
    if not contents["results"]:
        notes.append("no results yet")
    reasons = [contents[name].missing for name in ("ranked", "attention", "similarities", "confusions")]
    return notes + list(dict.fromkeys(reason for reason in reasons if reason))
