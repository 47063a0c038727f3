"""Writes the record files of a dataset, each by itself: in any process, on any machine, at any time, the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

import deskpro_jax
from deskpro_jax.data.build.assemble import assemble
from deskpro_jax.data.build.image_sources import Finding, ImageSource, PartsFormat
from deskpro_jax.data.mask_statistics import MaskMeasure
from deskpro_jax.data.schema import SPLITS, Example
from deskpro_jax.errors import RunError
from deskpro_jax.storage.files import atomic_path, write_text

IMAGES = 1024  # in a shard
MAX_SHARDS = 1024  # of a split; larger splits have more images in each
_REVISION = 3  # of what a shard is; raise it when the same files are to give other bytes
_VERSIONS = ("pillow", "simplejpeg", "tensorflow-datasets", "array_record")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A piece of work: one record file.

    Attributes:
        split: split of its images.
        number: position among the shards of the split.
        folder: where it is written, with its report beside it.
        sources: its images in the order of the records.
        parts_format: how each of them becomes an example.
    """

    split: str
    number: int
    folder: str
    sources: tuple[ImageSource, ...]
    parts_format: PartsFormat

    @property
    def records(self) -> Path:
        """The record file; whole when it is there."""
        return Path(self.folder) / f"{self.split}-{self.number:05d}.records"

    @property
    def report(self) -> Path:
        """The report; whole when it is there, and written after the records."""
        return self.records.with_suffix(".json")


class ShardReport(NamedTuple):
    """The outcome of writing a shard.

    Attributes:
        fingerprint: of everything the shard depends on.
        images: number of records written; 0 leaves no file.
        size: bytes of the records, without the overhead of the file.
        findings: files that can't be used; they are in no record.
        remarks: how often each remark (`image_report.KINDS`) was made.
        masks: the measures of its masks.
    """

    fingerprint: str
    images: int
    size: int
    findings: tuple[Finding, ...]
    remarks: dict[str, int]
    masks: tuple[MaskMeasure, ...] = ()


def plan(sources: Sequence[ImageSource], parts_format: PartsFormat, folder: Path) -> list[Shard]:
    """Divides a dataset into shards, in an order that depends only on the names of the images.

    Args:
        sources: all images.
        parts_format: how each of them becomes an example.
        folder: where the shards are written.
    """
    shards: list[Shard] = []
    for split in SPLITS:
        images = sorted(
            (source for source in sources if source.split == split), key=lambda s: _order(split, s.image_id)
        )
        count = min(MAX_SHARDS, -(-len(images) // IMAGES))
        bounds = [round(len(images) * number / count) for number in range(count + 1)] if count else []
        shards.extend(
            Shard(split, number, str(folder), tuple(images[start:end]), parts_format)
            for number, (start, end) in enumerate(itertools.pairwise(bounds))
        )
    return shards


def _order(split: str, image_id: str) -> bytes:
    """Returns the hash that the images of a split are sorted by: the one that TFDS's own writer sorts by."""
    return hashlib.md5(split.encode() + image_id.encode()).digest()


def write_shard(shard: Shard) -> ShardReport:
    """Writes a shard, unless it was written from the very same files before.

    Args:
        shard: the shard.

    Returns:
        The report, which is on disk as well.
    """
    fingerprint = _fingerprint(shard)
    done = read_report(shard)
    if done is not None and done.fingerprint == fingerprint and (shard.records.exists() or not done.images):
        return done
    shard.report.unlink(missing_ok=True)
    findings: list[Finding] = []
    remarks: Counter[str] = Counter()
    sizes: list[int] = []
    masks: list[MaskMeasure] = []

    def examples() -> Iterator[Example]:
        for source in shard.sources:
            assembled = assemble(source, shard.parts_format)
            findings.extend(assembled.findings)
            if assembled.example is not None:
                remarks.update(assembled.remarks)
                masks.extend([assembled.mask] if assembled.mask else [])
                yield assembled.example

    with atomic_path(shard.records) as temporary:
        _write_records(temporary, examples(), sizes)
    if not sizes:
        shard.records.unlink()
    report = ShardReport(
        fingerprint, len(sizes), sum(sizes), tuple(findings), dict(sorted(remarks.items())), tuple(masks)
    )
    write_text(shard.report, json.dumps(report._asdict()))
    return report


def read_report(shard: Shard) -> ShardReport | None:
    """Reads the report of a shard; None where there is none."""
    try:
        stored = json.loads(shard.report.read_text())
    except (FileNotFoundError, ValueError):
        return None
    findings = tuple(Finding(*finding) for finding in stored["findings"])
    masks = tuple(MaskMeasure(*mask) for mask in stored.get("masks", ()))
    return ShardReport(**{**stored, "findings": findings, "masks": masks})


def reports(shards: Iterable[Shard]) -> list[ShardReport]:
    """Returns the reports of shards that have all been written.

    Raises:
        RunError: one is missing.
    """
    result = []
    for shard in shards:
        report = read_report(shard)
        if report is None or (report.images and not shard.records.exists()):
            raise RunError(f"{shard.records} was not written: run the same command again")
        result.append(report)
    return result


def encoded(example: Example) -> dict[str, Any]:
    """Wraps encoded images in files, which TFDS stores byte for byte."""

    def optional(content: bytes | None) -> list[io.BytesIO]:
        return [] if content is None else [io.BytesIO(content)]

    return {
        **example._asdict(),
        "body": io.BytesIO(example.body),
        "parts": optional(example.parts),
        "face": optional(example.face),
        "restored_face": optional(example.restored_face),
    }


def features() -> tfds.features.FeaturesDict:
    """Returns the TFDS features of a stored example."""
    photo, labels = tfds.features.Image(shape=(None, None, 3)), tfds.features.Image(shape=(None, None, 1))
    return tfds.features.FeaturesDict(
        {
            "image_id": tfds.features.Text(),
            "body": photo,
            "parts": tfds.features.Sequence(labels),  # 0 or 1: TFDS has no optional image
            "face": tfds.features.Sequence(photo),
            "restored_face": tfds.features.Sequence(photo),
            "identity": np.int64,
            "camera": np.int64,
            "clothes": np.int64,
            "tracklet": np.int64,
            "scale": np.int64,
        }
    )


def _write_records(path: Path, examples: Iterable[Example], sizes: list[int]) -> None:
    """Writes examples as TFDS does; appends the bytes of each record to `sizes`."""
    from tensorflow_datasets.core import example_serializer, file_adapters

    connector = features()
    serializer = example_serializer.ExampleSerializer(connector.get_serialized_info())

    def records() -> Iterator[tuple[str, bytes]]:
        for example in examples:
            stored = serializer.get_tf_example(connector.encode_example(encoded(example)))
            record = stored.SerializeToString(deterministic=True)  # else the fields come in any order
            sizes.append(len(record))
            yield example.image_id, record

    file_adapters.ArrayRecordFileAdapter.write_examples(path, records())


def _fingerprint(shard: Shard) -> str:
    """Returns a hash of all that decides the bytes of a shard: labels, files, parts format and versions."""
    digest = hashlib.sha256()
    versions = [deskpro_jax.__version__, *(importlib.metadata.version(package) for package in _VERSIONS)]
    digest.update(repr((_REVISION, versions, shard.split, shard.parts_format)).encode())
    for source in shard.sources:
        states = []
        for file in source.files:
            try:
                state = os.stat(file) if file is not None else None
            except OSError:
                state = None
            states.append((state.st_size, state.st_mtime_ns) if state else None)
        digest.update(repr((source, states)).encode())
    return digest.hexdigest()
