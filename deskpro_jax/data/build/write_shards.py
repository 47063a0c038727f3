"""Writes all shards of a dataset, one builder at a time; nothing is left out in silence."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deskpro_jax.data.build import shards
from deskpro_jax.data.build.image_sources import Listing, refuse
from deskpro_jax.data.build.shards import Shard
from deskpro_jax.data.schema import SPLITS
from deskpro_jax.errors import InputError
from deskpro_jax.storage.locks import locked

Runner = Callable[[Sequence[Shard]], None]
Tell = Callable[[str], None]
WORK = ".building"  # beside the versions of a dataset: finished shards of one that is not finished


def write_shards(listing: Listing, work: Path, skip_bad: bool, run: Runner, tell: Tell) -> tuple[Shard, ...]:
    """Writes the shards of a dataset.

    Args:
      listing: What to write; notes, files left out and remarks are added to its origin.
      work: Folder for the shards; those that are there and still hold are kept.
      skip_bad: Whether files that can't be used are left out.
      run: Writes the shards.
      tell: Is called with notes and with every file that is left out.

    Returns:
      The shards.

    Raises:
      InputError: If files can't be used and are not to be left out, or a split would be empty; lists all of them.
      RunError: If a shard was not written.
    """
    for note in listing.notes:
        tell(note)
    planned = shards.plan(listing.sources, listing.parts_format, work)
    run(planned)
    written = shards.reports(planned)
    every = [*listing.findings, *(finding for report in written for finding in report.findings)]
    findings = sorted(dict.fromkeys(every))
    if not skip_bad:
        refuse(findings, "; python -m data_prep.build --skip-bad builds without such files")
    for finding in findings:
        tell(f"left out: {finding}")
    for split in SPLITS:
        if not sum(report.images for shard, report in zip(planned, written, strict=True) if shard.split == split):
            raise InputError(f"no image of split {split} can be used, {len(findings)} files are bad: {findings[0]}")
    remarks: Counter[str] = Counter()
    for report in written:
        remarks.update(report.remarks)
    if listing.notes:
        listing.origin["notes"] = listing.notes
    if findings:
        listing.origin["left_out"] = [str(finding) for finding in findings]
    if remarks:
        listing.origin["remarks"] = dict(sorted(remarks.items()))
    return tuple(planned)


@contextlib.contextmanager
def only_builder(folder: Path) -> Iterator[Path]:
    """Gives the folder for unfinished work on a dataset to one process at a time; it goes when all went well.

    Args:
      folder: The dataset's folder, which is not there yet.

    Raises:
      RunError: If another process builds the dataset.
    """
    work = folder.parent / WORK
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / "lock", f"another process builds {folder}: wait for it, or end it"):
        for left in folder.parent.glob(f"incomplete.*_{folder.name}"):
            shutil.rmtree(left)  # of a build that was killed while it collected the shards
        yield work
        shutil.rmtree(work)
