"""Checks a dataset before it is built, or as it was built: every image, every label, a sheet of examples, a verdict.

    python -m data_prep.check DIR [--dataset NAME] [--parts DIR]

`DIR` is a dataset as its authors distribute it, prepared folders (imgs/ ...), the folder of one's own manifest.csv, or
a built dataset. The last line is "usable", or the end of a list of what to fix. `docs/evaluation.md` and
`docs/datasets.md` say what the labels mean.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging as absl_logging

from data_prep.checking import examine, judge, recognise, sheet
from data_prep.checking.examine import Examined, Problem
from data_prep.checking.recognise import BUILT, PREPARED, RecognisedFolder
from data_prep.checking.report import CheckResult
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.data.build.assemble import assemble
from deskpro_jax.data.build.image_sources import DatasetListing, ImageSource
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.build.published_sizes import differences
from deskpro_jax.data.datasets.find import dataset_name
from deskpro_jax.data.mask_statistics import summarise
from deskpro_jax.data.masks import AUTO, MASK_KINDS
from deskpro_jax.data.records import Records, every_column
from deskpro_jax.data.schema import SCHEMES, SPLITS, Example
from deskpro_jax.errors import InputError, MissingInputError, end_command
from deskpro_jax.runtime import cores
from deskpro_jax.runtime import progress as progress_
from deskpro_jax.storage.files import check_writable, require_json, write_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks a dataset; returns 0 if it is usable, 1 if there is something to fix, 2 if it can't be checked."""
    options = _parser().parse_args(arguments)
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)

    def judge_all() -> int:
        report = check(options)
        print("\n".join(report.lines(everything=options.all)))
        return 0 if report.usable else 1

    return end_command(judge_all)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("check", main.__doc__)
    add = parser.add_argument
    add("folder", metavar="DIR", type=Path, help="what to check: raw files of any layout, or a built dataset")
    add(
        "--dataset",
        metavar="NAME",
        help="its name, or MODULE:NAME of your own (default: guessed)",
    )
    add("--parts", metavar="DIR", type=Path, help="masks and faces that belong to the photos, as for data_prep.build")
    kinds = f"{', '.join(MASK_KINDS)} (default: {AUTO}, decided from the files)"
    add("--mask-kind", metavar="KIND", default=AUTO, help=f"what the masks are: {kinds}")
    add("--with-val", action="store_true", help="prcc: check the validation images as well")
    add("--sheet", metavar="FILE", type=Path, help="PNG with random examples (default: check-NAME.png here)")
    add("--no-sheet", action="store_true", help="draw no sheet")
    add("--examples", type=int, default=12, help="how many examples the sheet shows (default: 12)")
    add("--seed", type=int, default=0, help="decides which examples (default: 0)")
    add("--json", metavar="FILE", type=Path, help="writes everything that was checked, image by image")
    add("--all", action="store_true", help="prints all names where otherwise the first are printed")
    add("--workers", type=int, default=cores.count(), help="processes (default: one per core, %(default)s here)")
    return parser


def check(options: argparse.Namespace) -> CheckResult:
    """Checks a dataset as the command's options say.

    Returns:
        The outcome; the sheet and the JSON file are written.

    Raises:
        InputError: an option has no usable value, or the folder holds nothing that can be checked.
        MissingInputError: the folder does not exist.
        RunError: a process died.
    """
    for flag, lowest in (("workers", 0), ("examples", 1), ("seed", 0)):
        if getattr(options, flag) < lowest:
            raise InputError(f"--{flag} is {getattr(options, flag)}, expected {lowest} or more")
    # Before hours of examining.
    drawn = None if options.no_sheet else options.sheet or Path("check-NAME.png")
    for file, remedy in ((drawn, "give another --sheet, or --no-sheet"), (options.json, "give another --json")):
        if file is not None and not file.absolute().parent.is_dir():
            raise MissingInputError(f"no folder {file.absolute().parent} to write {file.name} to: make it")
        if file is not None:
            check_writable(file.absolute().parent, remedy)
    name = dataset_name(options.dataset, "--dataset") if options.dataset else None
    checked = recognise.recognise(options.folder, name)
    report = CheckResult(checked)
    if checked.layout == BUILT:
        for value, flag in (
            (options.parts, "--parts"),
            (options.with_val, "--with-val"),
            (options.mask_kind != AUTO, "--mask-kind"),
        ):
            if value:
                raise InputError(f"{checked.folder} is already built: leave {flag} out")
        images = _check_built(checked, report, options)
    else:
        images = _check_raw(checked, report, options)
    if images is None:
        return report
    _judge(checked, images, report)
    if options.json is not None:
        _write_json(options.json, checked, images, report)
    return report


def _check_raw(checked: RecognisedFolder, report: CheckResult, options: argparse.Namespace) -> list[Examined] | None:
    """Examines files; None when they can't be listed as a dataset."""
    try:
        listing = list_dataset(checked.name, checked.folder, options.parts, options.with_val, options.mask_kind)
    except (InputError, MissingInputError) as error:
        report.fix.append(str(error))
        return None
    for finding in listing.findings:
        report.problems.append(Problem(finding.file, "name", finding.reason))
    report.remarks += listing.notes
    report.mask_kind = listing.parts_format.kind
    with _progress(len(listing.sources)) as advance:
        images = examine.run(examine.source_tasks(listing), options.workers, advance)
    lines = differences(checked.spec, listing.sources, options.with_val)
    if lines:
        text = "its size is not as published:" + "".join(f"\n  {line}" for line in lines)
        report.warnings.append(text)
        report.allowance = "" if checked.layout == PREPARED else "--allow-different-size"
    report.as_published = checked.layout == recognise.AUTHORS and bool(checked.spec.sizes)
    report.as_published &= not lines and not listing.findings
    _draw(checked, report, options, listing=listing)
    return images


def _check_built(checked: RecognisedFolder, report: CheckResult, options: argparse.Namespace) -> list[Examined] | None:
    """Examines records; None when they can't be opened."""
    try:
        metadata = require_json(checked.folder / "metadata.json", "build the dataset again")
        scheme = SCHEMES[metadata["label_scheme"]]
        clothing = tuple(metadata["clothing"])
        tasks = examine.record_tasks(checked.folder, len(scheme.labels), clothing)
        report.mask_kind = metadata.get("mask_kind", scheme.name)
    except (InputError, MissingInputError) as error:
        report.fix.append(str(error))
        return None
    except (ValueError, KeyError, TypeError) as error:
        report.fix.append(f"{checked.folder / 'metadata.json'} is damaged ({error!r}): build the dataset again")
        return None
    with _progress(sum(len(Records(checked.folder, split)) for split in SPLITS)) as advance:
        images = examine.run(tasks, options.workers, advance)
    try:
        require_json(checked.folder / "features.json", "build the dataset again")
    except (InputError, OSError) as error:
        report.fix.append(str(error))
    if not any(image.problems for image in images):
        _check_content(checked.folder, metadata, images, report)
    for key, what in (("left_out", "files were left out when it was built"), ("notes", "notes of the build")):
        if metadata.get(key):
            report.remarks.append(f"{len(metadata[key]):,} {what}: {'; '.join(metadata[key])}")
    if metadata.get("size_differences"):
        lines = "".join(f"\n  {line}" for line in metadata["size_differences"])
        report.warnings.append(f"its size is not as published:{lines}")
    report.as_published = metadata.get("source") == recognise.AUTHORS and not metadata.get("size_differences")
    report.as_published &= not metadata.get("left_out")
    _draw(checked, report, options, clothing=clothing)
    return images


def _check_content(folder: Path, metadata: dict[str, Any], images: Sequence[Examined], report: CheckResult) -> None:
    """Compares the records with the checksums and the columns that were written with them."""
    from deskpro_jax.data.build.builder import checksum  # here: it brings the whole of TFDS

    for split in SPLITS:
        records = Records(folder, split)
        if checksum(records) != metadata.get("checksums", {}).get(split):
            report.fix.append(f"{folder}: split {split} is not what was built, its checksum differs: build it again")
        members = [i for i in images if i.split == split]
        expected = [
            (
                *(i.image_id, i.identity, i.camera, i.clothes, i.tracklet, i.scale),
                *(i.has_face, i.has_restored_face, i.has_mask),
            )
            for i in members
        ]
        file = folder / f"columns-{split}.npz"
        if file.exists() and not _columns_are(file, expected):
            report.fix.append(f"{file} has other labels than the records: delete it, it is made again")


def _columns_are(file: Path, expected: list[tuple[Any, ...]]) -> bool:
    try:
        with np.load(io.BytesIO(file.read_bytes())) as stored:
            return list(zip(*(values.tolist() for values in every_column(stored).values()), strict=True)) == expected
    except Exception:  # zip files go wrong in many ways
        return False


def _judge(checked: RecognisedFolder, images: Sequence[Examined], report: CheckResult) -> None:
    """Adds counts, duplicates and matches of all images together."""
    report.images = list(images)
    report.counts = judge.counts(images)
    report.problems += [problem for image in images for problem in image.problems]
    report.duplicates = judge.duplicates(images)
    report.masks = summarise(image.mask for image in images if image.mask is not None)
    report.matches = judge.matches(checked.spec, images)
    if all(match.problem for match in report.matches):
        report.fix.append("the labels allow none of the protocols of this dataset (see above)")
    shared, same_people = judge.shared_identities(checked.spec, images)
    if shared:
        numbers = f"{len(shared):,} identity numbers are in train and in test: {report.some(shared)}"
        if same_people:
            report.warnings.append(f"{numbers}; train and test should have different people")
        else:
            report.remarks.append(f"{numbers}; as usual here, they are different people and never compared")
    repeated = judge.repeated_numbers(checked.spec, images)
    if repeated:
        report.warnings.append(f"{len(repeated):,} image numbers come twice: {report.some(repeated)}")


def _draw(
    checked: RecognisedFolder,
    report: CheckResult,
    options: argparse.Namespace,
    *,
    listing: DatasetListing | None = None,
    clothing: tuple[int, ...] = (),
) -> None:
    """Draws the sheet of examples."""
    if options.no_sheet:
        return
    if listing is not None:
        clothing = SCHEMES[listing.parts_format.scheme].clothing
        by_split: dict[str, list[ImageSource]] = {split: [] for split in SPLITS}
        for source in listing.sources:
            by_split[source.split].append(source)
        sizes = {split: len(sources) for split, sources in by_split.items()}

        def load(split: str, position: int) -> Example | None:
            return assemble(by_split[split][position], listing.parts_format).example
    else:
        records = {split: Records(checked.folder, split) for split in SPLITS}
        sizes = {split: len(opened) for split, opened in records.items()}

        def load(split: str, position: int) -> Example | None:
            return records[split][position]

    examples = sheet.draw_at_random(sizes, load, options.examples, options.seed)
    if examples:
        report.sheet = options.sheet or Path(f"check-{checked.spec.name}.png")
        sheet.write_sheet(report.sheet, examples, clothing)


def _write_json(path: Path, checked: RecognisedFolder, images: Sequence[Examined], report: CheckResult) -> None:
    record = {
        "dataset": checked.spec.name,
        "layout": checked.layout,
        "folder": str(checked.folder),
        "usable": report.usable,
        **report.record(),
        "images": [
            image._asdict()
            | {
                "problems": [problem._asdict() for problem in image.problems],
                "mask": image.mask and image.mask._asdict(),
            }
            for image in images
        ],
    }
    write_text(path, json.dumps(record, indent=1) + "\n")


@contextlib.contextmanager
def _progress(total: int) -> Iterator[examine.Advance]:
    with progress_.Progress(total, "examining images", images_per_step=1, log_seconds=10.0) as progress:
        yield lambda count: progress.advance(steps=count)


if __name__ == "__main__":
    sys.exit(main())
