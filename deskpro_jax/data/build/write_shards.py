"""Writes all shards of a dataset, one builder at a time; nothing is left out in silence."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deskpro_jax.data.build import shards
from deskpro_jax.data.build.image_sources import DatasetListing, refuse
from deskpro_jax.data.build.shards import Shard
from deskpro_jax.data.mask_statistics import summarise
from deskpro_jax.data.schema import SPLITS
from deskpro_jax.errors import InputError
from deskpro_jax.storage.locks import locked

Runner = Callable[[Sequence[Shard]], None]
Warn = Callable[[str], None]
_CHECK = "python -m data_prep.check, which draws a sheet of examples"
WORK = ".building"  # beside the versions of a dataset: finished shards of one that is not finished


def write_shards(listing: DatasetListing, work: Path, skip_bad: bool, run: Runner, warn: Warn) -> tuple[Shard, ...]:
    """Writes the shards of a dataset.

    Args:
        listing: the images; notes, files left out and remarks are added to its origin.
        work: folder for the shards; finished ones whose files have not changed are kept.
        skip_bad: whether files that can't be used are left out.
        run: writes the shards.
        warn: is called with notes and with every file that is left out.

    Returns:
        The shards.

    Raises:
        InputError: files can't be used and `skip_bad` is False, or a split would be empty; lists all of them.
        RunError: a shard was not written.
    """
    for note in listing.notes:
        warn(note)
    planned = shards.plan(listing.sources, listing.parts_format, work)
    run(planned)
    written = shards.reports(planned)
    every = [*listing.findings, *(finding for report in written for finding in report.findings)]
    findings = sorted(dict.fromkeys(every))
    if not skip_bad:
        refuse(findings, "; python -m data_prep.build --skip-bad builds without such files")
    for finding in findings:
        warn(f"left out: {finding}")
    for split in SPLITS:
        if not sum(report.images for shard, report in zip(planned, written, strict=True) if shard.split == split):
            raise InputError(f"no image of split {split} can be used, {len(findings)} files are bad: {findings[0]}")
    remarks: Counter[str] = Counter()
    for report in written:
        remarks.update(report.remarks)
    summary = summarise(mask for report in written for mask in report.masks)
    if summary:
        if listing.parts_format.masks or listing.parts_format.stated:  # label maps of this package are as they were
            listing.origin["mask_statistics"] = summary._asdict()
        for line in summary.warnings(listing.parts_format.kind, f"look at them with {_CHECK}"):
            warn(line)
    if listing.notes:
        listing.origin["notes"] = listing.notes
    if findings:
        listing.origin["left_out"] = [str(finding) for finding in findings]
    if remarks:
        listing.origin["remarks"] = dict(sorted(remarks.items()))
    return tuple(planned)


@contextlib.contextmanager
def only_builder(folder: Path) -> Iterator[Path]:
    """Yields the folder for unfinished work on a dataset, to one process at a time; success removes it.

    Args:
        folder: the dataset's folder, which does not exist yet.

    Raises:
        RunError: another process is building the dataset.
    """
    work = folder.parent / WORK
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / "lock", f"another process is building {folder}: wait for it, or end it"):
        for left in folder.parent.glob(f"incomplete.*_{folder.name}"):
            shutil.rmtree(left)  # of a build that was killed while it collected the shards
        yield work
        shutil.rmtree(work)
