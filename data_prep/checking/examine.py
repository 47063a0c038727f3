"""Examines every image of a dataset in processes of this machine: decoded to the last pixel, hashed, damage named."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import io
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from deskpro_jax.data.build.assemble import assemble
from deskpro_jax.data.build.checksum_lists import SUMS
from deskpro_jax.data.build.image_sources import DatasetListing, Finding, ImageSource, PartsFormat
from deskpro_jax.data.image_report import MIN_SIDE
from deskpro_jax.data.images import inspect_image
from deskpro_jax.data.mask_statistics import MaskMeasure, measure_stored
from deskpro_jax.data.records import Records
from deskpro_jax.data.schema import SPLITS, UNKNOWN_TRACKLET, Example
from deskpro_jax.errors import RunError
from deskpro_jax.storage.checksums import file_sha256

CHUNK = 64  # images that a process gets at a time
_FEW = 8 * CHUNK  # up to so many are done sooner than processes start


class Problem(NamedTuple):
    """A file that can't be used; printed, file and text make one sentence.

    Attributes:
        file: its path, or where it is in a built dataset.
        kind: a fatal name of `image_report.KINDS`, or "label_map", "checksum", "name", "record".
        text: what is wrong, and what to do.
    """

    file: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}{self.text}"


class Examined(NamedTuple):
    """The outcome of examining one image.

    Attributes:
        split: one of `schema.SPLITS`.
        image_id: its name within the split.
        identity: the dataset's own number of the person.
        camera: -1 when not known.
        clothes: -1 when not known.
        name: path of the photo, or where it is in a built dataset.
        sha256: of the photo's bytes; "" when they can't be read.
        has_mask: whether there is a mask or label map, usable or not.
        has_face: whether there is a face as photographed.
        has_restored_face: whether there is a restored face.
        usable: whether the photo can be used.
        remarks: names in `image_report.KINDS` of what is worth knowing about the photo.
        problems: its files that can't be used.
        mask: measures of its mask or label map, None where there is none that can be used.
        tracklet: -1 when not known.
        scale: -1 when not known.
    """

    split: str
    image_id: str
    identity: int
    camera: int
    clothes: int
    name: str
    sha256: str
    has_mask: bool
    has_face: bool
    has_restored_face: bool
    usable: bool
    remarks: tuple[str, ...]
    problems: tuple[Problem, ...]
    mask: MaskMeasure | None = None
    tracklet: int = UNKNOWN_TRACKLET
    scale: int = -1


Task = Callable[[], list[Examined]]
Advance = Callable[[int], None]


def source_tasks(listing: DatasetListing) -> list[Task]:
    """Returns the work of examining listed files."""
    sources = listing.sources
    return [
        functools.partial(_examine_sources, tuple(sources[start : start + CHUNK]), listing.parts_format)
        for start in range(0, len(sources), CHUNK)
    ]


def record_tasks(folder: Path, labels: int, clothing: tuple[int, ...]) -> list[Task]:
    """Returns the work of examining a built dataset.

    Args:
        folder: with its records.
        labels: how many part labels its scheme has.
        clothing: those that are clothing.

    Raises:
        InputError: a file of records is damaged as a whole.
        MissingInputError: one is missing.
    """
    sizes = {split: len(Records(folder, split)) for split in SPLITS}
    return [
        functools.partial(_examine_records, folder, split, start, min(start + CHUNK, size), labels, clothing)
        for split, size in sizes.items()
        for start in range(0, size, CHUNK)
    ]


def run(tasks: Sequence[Task], workers: int, advance: Advance) -> list[Examined]:
    """Examines images.

    Args:
        tasks: from `source_tasks` or `record_tasks`.
        workers: processes; below 2, and for few images, this one does it.
        advance: is called after every task with the number of its images.

    Returns:
        The images in the order of the tasks.

    Raises:
        RunError: a process died.
    """
    results: list[list[Examined]] = []
    if workers < 2 or len(tasks) * CHUNK <= _FEW:
        for task in tasks:
            results.append(task())
            advance(len(results[-1]))
        return [examined for result in results for examined in result]
    context = multiprocessing.get_context("spawn")  # forking a process that runs threads can hang
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        try:
            for result in pool.map(_call, tasks):
                results.append(result)
                advance(len(result))
        except concurrent.futures.process.BrokenProcessPool as error:
            raise RunError(
                f"a process died while it examined images from number {len(results) * CHUNK + 1:,} on, as it does "
                "without memory: check again with --workers 0"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [examined for result in results for examined in result]


def _call(task: Task) -> list[Examined]:
    return task()


def _examine_sources(sources: Sequence[ImageSource], parts_format: PartsFormat) -> list[Examined]:
    return [_examine_source(source, parts_format) for source in sources]


def _examine_source(source: ImageSource, parts_format: PartsFormat) -> Examined:
    try:
        assembled = assemble(source, parts_format)
        findings, remarks, usable = assembled.findings, assembled.remarks, assembled.example is not None
        mask = assembled.mask
    except Exception as error:  # a check ends for no file
        text = f" can't be examined ({type(error).__name__}: {error}): replace or remove it"
        findings, remarks, usable, mask = (Finding(source.body, text),), (), False, None
    try:
        sha256 = file_sha256(Path(source.body))
    except OSError:
        sha256 = ""
    return Examined(
        source.split,
        source.image_id,
        source.identity,
        source.camera,
        source.clothes,
        name=source.body,
        sha256=sha256,
        has_mask=source.parts is not None,
        has_face=source.face is not None,
        has_restored_face=source.restored_face is not None,
        usable=usable,
        remarks=remarks,
        problems=tuple(Problem(finding.file, _kind(finding), finding.reason) for finding in findings),
        mask=mask,
        tracklet=source.tracklet,
        scale=source.scale,
    )


def _kind(finding: Finding) -> str:
    """Returns the kind of damage of a finding."""
    try:
        content = Path(finding.file).read_bytes()
    except OSError:
        return "unreadable"
    if SUMS in finding.reason:
        return "checksum"
    problems = inspect_image(content).problems
    return problems[0] if problems else "label_map"


def _examine_records(
    folder: Path, split: str, start: int, stop: int, labels: int, clothing: tuple[int, ...]
) -> list[Examined]:
    records = Records(folder, split)
    return [_examine_record(records, split, position, labels, clothing) for position in range(start, stop)]


def _examine_record(records: Records, split: str, position: int, labels: int, clothing: tuple[int, ...]) -> Examined:
    where = f"{split}/record {position}"
    try:
        example = records[position]
    except Exception as error:  # array_record and protobuf raise many kinds
        text = f" can't be read ({type(error).__name__}: {str(error)[:200]}): build the dataset again"
        damaged = (Problem(where, "record", text),)
        return Examined(split, "", -1, -1, -1, where, "", False, False, False, False, (), damaged)
    name = f"{split}/{example.image_id}"
    report = inspect_image(example.body)
    problems = tuple(_stored_problems(example, name, labels))
    mask = None
    if example.parts is not None and not problems:
        mask = measure_stored(example.parts, clothing, report.upright_size)
    return Examined(
        split,
        example.image_id,
        example.identity,
        example.camera,
        example.clothes,
        name=name,
        sha256=hashlib.sha256(example.body).hexdigest(),
        has_mask=example.parts is not None,
        has_face=example.face is not None,
        has_restored_face=example.restored_face is not None,
        usable=report.usable,
        remarks=report.remarks,
        problems=problems,
        mask=mask,
        tracklet=example.tracklet,
        scale=example.scale,
    )


def _stored_problems(example: Example, name: str, labels: int) -> list[Problem]:
    """Returns the problems of the images of a record."""
    problems = []
    for field in ("body", "parts", "face", "restored_face"):
        content = getattr(example, field)
        if content is None:
            continue
        where = name if field == "body" else f"{name}, {field}"
        report = inspect_image(content, 1 if field == "parts" else MIN_SIDE)
        if not report.usable:
            problems.append(Problem(where, report.problems[0], f" {report.describe()}"))
        elif field == "parts" and (wrong := _unfit_labels(content, labels)):
            problems.append(Problem(where, "label_map", f" {wrong}: build the dataset again"))
    return problems


def _unfit_labels(content: bytes, labels: int) -> str:
    with Image.open(io.BytesIO(content)) as image:
        if image.mode != "L":
            return f"has mode {image.mode}, expected L (one label per pixel)"
        highest = int(np.asarray(image).max())
    return f"has label {highest}, expected 0 to {labels - 1}" if highest >= labels else ""
