"""Builds a dataset from the files that its authors distribute, with masks and faces where there are any.

    python -m data_prep.build --dataset celeb --raw DIR [--parts DIR] --out DIR

`docs/datasets.md` says where files go and what each dataset's labels mean.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging as absl_logging

from deskpro_jax.cli.commands import command_parser
from deskpro_jax.data.build.write_shards import Runner
from deskpro_jax.data.datasets.find import NAMES, dataset_name
from deskpro_jax.data.mask_statistics import MaskSummary
from deskpro_jax.data.masks import AUTO, MASK_KINDS
from deskpro_jax.errors import InputError, end_command
from deskpro_jax.runtime import cores
from deskpro_jax.storage.files import require_json

RUNNERS = ("local", "beam")


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds a dataset from its authors' files; returns the exit code."""
    options = _parser().parse_args(arguments)
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS logs every step
    return end_command(lambda: _build(options), "interrupted; the same command goes on from here.")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("build", main.__doc__)
    add = parser.add_argument
    add(
        "--dataset",
        required=True,
        metavar="NAME",
        help=f"one of {', '.join(NAMES)}, or MODULE:NAME of a dataset of your own",
    )
    add(
        "--raw",
        metavar="DIR",
        help="the folder as its authors distribute it, or prepared folders (imgs/ ...); for the dataset "
        "'folder' the CSV or its folder",
    )
    add("--parts", metavar="DIR", help="masks and faces: what the data preparation wrote, or mask/ lr_face/ hr_face/")
    kinds = f"{', '.join(MASK_KINDS)} (default: {AUTO}, decided from the files)"
    add("--mask-kind", metavar="KIND", default=AUTO, help=f"what the masks are: {kinds}")
    add("--out", required=True, metavar="DIR", help="where TFDS datasets are kept (data.data_dir of a run)")
    add("--with-val", action="store_true", help="prcc: add the validation images to train")
    add("--allow-different-size", action="store_true", help="build splits that differ in size from those published")
    add("--skip-bad", action="store_true", help="leave out files that can't be used; each is printed, and listed in "
        "the dataset's metadata")  # fmt: skip
    add("--workers", type=int, default=cores.count(), help="processes (default: one per core, %(default)s here)")
    add("--seed", type=int, default=0, help="synthetic datasets: of the drawn people (default: 0)")
    add("--runner", choices=RUNNERS, default="local", help="beam: Apache Beam, the extra 'beam' (default: local)")
    add("--beam-option", action="append", default=[], metavar="NAME=VALUE", help="an option of the Beam pipeline, as "
        "runner=FlinkRunner; may be given several times (default: processes of this machine)")  # fmt: skip
    return parser


def _build(options: argparse.Namespace) -> None:
    name = dataset_name(options.dataset, "--dataset")
    if options.workers < 0:
        raise InputError(f"--workers is {options.workers}, expected 0 or more")
    if options.beam_option and options.runner != "beam":
        raise InputError("--beam-option is for --runner beam")
    run: Runner | None = None
    if options.runner == "beam":
        if not options.raw:
            raise InputError("--runner beam builds from files: give --raw, or leave it out to draw a synthetic dataset")
        from data_prep import beam  # apache_beam is an extra

        run = beam.runner(options.beam_option, options.workers)
    from deskpro_jax.data.build import builder

    def warn(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    start, there = time.perf_counter(), builder.is_built(name, options.out)
    folder = builder.build(
        name,
        options.out,
        options.raw,
        options.seed,
        workers=options.workers,
        parts_dir=options.parts,
        with_val=options.with_val,
        allow_different_size=options.allow_different_size,
        skip_bad=options.skip_bad,
        mask_kind=options.mask_kind,
        run=run,
        warn=warn,
    )
    metadata = require_json(folder / "metadata.json", "build the dataset again")
    if there:
        print(f"{name} is in {folder} already, nothing was built; delete the folder to build it again")
    else:
        print(f"{name} built in {folder}")
    print(_summary(metadata, folder, None if there else time.perf_counter() - start))


def _summary(metadata: dict[str, Any], folder: Path, seconds: float | None) -> str:
    """Returns the contents of a dataset, one line per split, and the speed of its build."""
    lines, images = [], 0
    for split, size in metadata.get("sizes", {}).items():
        images += size["images"]
        lines.append(
            f"  {split}: {size['images']:,} images of {size['identities']:,} identities, {size['cameras']:,} cameras; "
            f"{size['masks']:,} masks, {size['faces']:,} faces, {size['restored_faces']:,} restored faces"
        )
    if remarks := metadata.get("remarks"):
        lines.append(f"  photos to know of: {', '.join(f'{count:,} {name}' for name, count in remarks.items())}")
    if statistics := metadata.get("mask_statistics"):
        kind = metadata.get("mask_kind", metadata["label_scheme"])
        lines.append(f"  {MaskSummary(**statistics).describe()}; read as {kind}")
    if left_out := metadata.get("left_out"):
        lines.append(f"  {len(left_out):,} files that can't be used are left out; metadata.json lists them")
    size = sum(file.stat().st_size for file in folder.iterdir())
    pace = f", {images:,} images in {seconds:.1f} s ({images / seconds:,.0f} images/s)" if seconds else ""
    return "\n".join([*lines, f"  {size / 1e6:,.1f} MB{pace}"])


if __name__ == "__main__":
    sys.exit(main())
