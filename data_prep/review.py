"""Command line: an HTML page of samples of what `data_prep.prepare` wrote.

python -m data_prep.review DIR --out review.html
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_prep.reviewing.cards import card
from data_prep.reviewing.choose import choose
from data_prep.reviewing.colours import kinds
from data_prep.reviewing.page import render
from data_prep.settings import SETTINGS_FILE, read_settings
from data_prep.table import overview, read_table, rows
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.data.schema import SCHEMES
from deskpro_jax.errors import InputError, MissingInputError, end_command
from deskpro_jax.runtime import cores
from deskpro_jax.storage.files import check_writable, write_text

SAMPLES = 60
PAGE = "review.html"


def review(folder: Path, page: Path, samples: int = SAMPLES, images: Path | None = None) -> int:
    """Writes the page.

    Args:
        folder: what `data_prep.prepare` wrote.
        page: the HTML file.
        samples: photos on it, at most.
        images: the folder of the photos; None for the one that the settings name.

    Returns:
        How many photos are on it.

    Raises:
        MissingInputError: there is no such folder, table or folder of photos.
        InputError: a file in it is damaged, or a package is missing.
    """
    if not folder.is_dir():
        raise MissingInputError(f"no folder at {folder}: give the one that data_prep.prepare wrote.")
    settings = read_settings(folder)
    if not settings:
        raise MissingInputError(f"no {SETTINGS_FILE} in {folder}: give the folder that data_prep.prepare wrote.")
    table = read_table(folder)
    found = overview(table)
    photos = images if images is not None else folder / settings["images"]
    if not photos.is_dir():
        raise MissingInputError(f"no folder of photos at {photos}: say with --images where they are now.")
    scheme = SCHEMES.get(settings["label_scheme"])
    parts = kinds(scheme) if scheme is not None else ()
    with ThreadPoolExecutor(max(2, cores.count())) as pool:
        chosen = rows(table, choose(found, samples))
        cards = list(pool.map(lambda row: card(row, folder, photos, parts), chosen))
    text = render(settings, found, cards, f"Review of {folder.resolve().name}")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, text)
    return len(cards)


def main(arguments: Sequence[str] | None = None) -> int:
    """Shows samples of masks, faces and restored faces on one HTML page; returns the exit code."""
    parser = command_parser("review", main.__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what data_prep.prepare wrote")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help=f"the page (default: DIR/{PAGE})")
    parser.add_argument(
        "--samples", type=int, default=SAMPLES, help="photos on the page, at most (default: %(default)s)"
    )
    parser.add_argument("--images", type=Path, help="the folder of the photos, if it has moved")
    options = parser.parse_args(arguments)
    page = options.out or options.folder / PAGE

    def write() -> None:
        if options.samples < 1:
            raise InputError(f"--samples is {options.samples}; expected 1 or more.")
        if page.is_dir():
            raise InputError(f"{page} is a folder; --out takes an HTML file.")
        check_writable(page.absolute().parent, "give the page another path (--out)")
        count = review(options.folder, page, options.samples, options.images)
        print(f"{page}: {count} photos, {page.stat().st_size / 1e6:.1f} MB")

    return end_command(write)


if __name__ == "__main__":
    sys.exit(main())
