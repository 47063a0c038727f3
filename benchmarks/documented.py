"""Fills in every figure that README and docs quote from the drawn people, and draws the README's two pictures.

    python -m benchmarks.documented                                               # runs demo and ablation first
    python -m benchmarks.documented --demo runs/synthetic --ablation runs/ablation
    python -m benchmarks.documented --quick                                       # does everything regenerate?

It is run on the machine that made the runs, whose processor it names. What it writes stands between markers
(`benchmarks/marked.py`); with only one of --demo and --ablation the text about the other stays.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import documented_pictures, documented_tables, marked
from deskpro_jax.errors import InputError, RunError, end_command
from deskpro_jax.storage.files import write_files

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/quick_start.md", "docs/ablation.md", "docs/synthetic.md", "docs/notebook.ipynb")
RANKED, ATTENTION = "docs/images/ranked_lists.png", "docs/images/attention.png"
CONFIG, QUICK = "configs/synthetic.py", "configs/synthetic.py:debug"
_SHOWN = f"""![Ranked lists of the demo: queries and what comes first, the same person in blue]({RANKED})

![Photos of the demo, where clothing is on them, and the attention of the body stream]({ATTENTION})"""
_QUICK_ROWS = "baseline,csa,csa_att"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the figures of a demo and an ablation into the pages; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.documented", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--demo", type=Path, metavar="DIR", help="finished workdir of README's first command")
    parser.add_argument("--ablation", type=Path, metavar="DIR", help="finished workdir of deskpro ablate")
    parser.add_argument(
        "--quick", action="store_true", help="small runs; writes into a copy and fails where a text stays as it was"
    )
    options = parser.parse_args(arguments)
    return end_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    demo, ablation = options.demo, options.ablation
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) if options.quick else Path("runs/documented")
        whole = options.quick or not (demo or ablation)
        if whole and demo is None:
            demo = _demo(runs / "demo", quick=options.quick)
        if whole and ablation is None:
            ablation = _ablation(runs / "ablation", quick=options.quick)
        pages = _copy(Path(folder) / "pages") if options.quick else ROOT
        texts, pictures = figures(demo, ablation)
        marked_names = fill(pages, texts, pictures)
        if options.quick and (stale := sorted(marked_names - texts.keys())):
            raise RunError(f"no run of the quick size gives the figures {', '.join(stale)}.")
    print(f"{len(marked_names & texts.keys())} texts and {len(pictures)} pictures written")


def figures(demo: Path | None, ablation: Path | None) -> tuple[dict[str, str], dict[str, bytes]]:
    """Returns the texts by the name of their block, and the pictures by their path in the checkout."""
    texts: dict[str, str] = {}
    pictures: dict[str, bytes] = {}
    if demo is not None:
        texts |= documented_tables.of_demo(demo)
        pictures[RANKED] = documented_pictures.ranked_lists(demo)
        if ablation is None:
            pictures[ATTENTION] = documented_pictures.attention_maps([("attention", demo)])
        texts["demo pictures"] = _SHOWN
    if ablation is not None:
        texts |= documented_tables.of_ablation(ablation)
        rows = [("with L_att", ablation / "csa_att/0"), ("without L_att", ablation / "csa/0")]
        if all(run.is_dir() for _, run in rows):
            pictures[ATTENTION] = documented_pictures.attention_maps(rows, ablation / "data")
    return texts, pictures


def fill(root: Path, texts: Mapping[str, str], pictures: Mapping[str, bytes]) -> set[str]:
    """Writes texts and pictures into the pages of a checkout; returns the names of all blocks of the pages.

    Raises:
        InputError: a block has a name that no run gives.
    """
    pages = [root / name for name in PAGES if (root / name).exists()]
    names = {name: page for page in pages for name in marked.read(page)}
    kinds = {text.split()[0] for text in texts}
    if unknown := [name for name in names if name.split()[0] in kinds and name not in texts]:
        raise InputError(
            f"{names[unknown[0]]}: no run has figures {unknown[0]!r}; expected one of {', '.join(sorted(texts))}."
        )
    contents = {page: marked.written(page, texts).encode() for page in pages}
    write_files(contents | {root / name: content for name, content in pictures.items()})
    return set(names)


def _demo(folder: Path, *, quick: bool) -> Path:
    _command("-m", "deskpro_jax.main", "--config", QUICK if quick else CONFIG, "--workdir", str(folder))
    return folder


def _ablation(folder: Path, *, quick: bool) -> Path:
    size = ["--config", QUICK, "--seeds", "1", "--rows", _QUICK_ROWS] if quick else ["--config", CONFIG, "--seeds", "3"]
    _command("-m", "deskpro_jax.ablate", *size, "--workdir", str(folder))
    return folder


def _command(*words: str) -> None:
    if subprocess.run([sys.executable, *words], check=False).returncode:
        raise RunError(f"python {' '.join(words)} failed; see above.")


def _copy(folder: Path) -> Path:
    """Copies the pages, so that a trial leaves the checkout as it is."""
    for name in PAGES:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "docs/images").mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
