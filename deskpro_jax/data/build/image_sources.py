"""The files and labels of each image of a dataset, listed before any image is opened."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deskpro_jax.data.masks import WHITE_OFF, WHITE_ON
from deskpro_jax.data.photo_names import is_left_behind
from deskpro_jax.data.schema import CLOTH_MASK, UNKNOWN_TRACKLET
from deskpro_jax.errors import InputError

_SHOWN = 5  # names in a note


class Finding(NamedTuple):
    """A file that can't be used and why; printed, the two make one sentence."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{self.reason}"


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """One image of a dataset: its labels, and the files that it is made of.

    Attributes:
        split: one of `schema.SPLITS`.
        image_id: unique within the split.
        identity: the dataset's own number of the person; negative for a distractor.
        camera: -1 when not known.
        clothes: -1 when not known.
        body: the photo.
        parts: part labels or mask, as in the `PartsFormat`.
        face: the face as photographed.
        restored_face: the face restored.
        sha256: what `files` must have, "" where it is not known; () where nothing is known.
        tracklet: -1 when not known.
        scale: -1 when not known.
    """

    split: str
    image_id: str
    identity: int
    camera: int
    clothes: int
    body: str
    parts: str | None = None
    face: str | None = None
    restored_face: str | None = None
    sha256: tuple[str, ...] = ()
    tracklet: int = UNKNOWN_TRACKLET
    scale: int = -1

    @property
    def files(self) -> tuple[str | None, ...]:
        """The files, in the order of the attributes."""
        return (self.body, self.parts, self.face, self.restored_face)


@dataclasses.dataclass(frozen=True)
class PartsFormat:
    """What kind of files the parts of a dataset are.

    Attributes:
        kind: one of `masks.MASK_KINDS`: masks, or label maps of a scheme.
        stated: whether the user says so, or the files look so.
        alpha: whether masks are in the alpha channel of their files.
        same_size: whether label maps must have the size of their photo.
    """

    kind: str = WHITE_OFF
    stated: bool = False
    alpha: bool = False
    same_size: bool = False

    @property
    def masks(self) -> bool:
        """Whether `ImageSource.parts` are masks rather than label maps."""
        return self.kind in (WHITE_OFF, WHITE_ON)

    @property
    def scheme(self) -> str:
        """Name of the label scheme that the examples have."""
        return CLOTH_MASK.name if self.masks else self.kind


@dataclasses.dataclass
class DatasetListing:
    """The images of a dataset, listed before any of them is opened.

    Attributes:
        sources: the images, in the order of splits and names.
        parts_format: what kind of files the parts are.
        origin: metadata of the dataset: labels, masks and faces, and where they come from.
        findings: files whose folder or name does not match.
        notes: remarks for the person who builds.
    """

    sources: list[ImageSource]
    parts_format: PartsFormat
    origin: dict[str, Any]
    findings: list[Finding] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def files_below(folder: Path, depth: int = 1) -> Iterator[tuple[str, Path]]:
    """Yields the files `depth` levels below a folder, and folders in place of files, in the order of their names.

    Args:
        folder: where to look; nothing is there if it does not exist.
        depth: 1 for the files in the folder itself, 2 for those in its folders, ...

    Yields:
        The path relative to `folder`, "/" between its parts, and the path.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in names:
        if is_left_behind(name):
            continue
        if is_folder and depth > 1:
            for below, file in files_below(folder / name, depth - 1):
                yield f"{name}/{below}", file
        else:
            yield name, folder / name


def unused_note(folder: Path, kind: str, files: Sequence[Path]) -> str:
    """Returns a line on the files of a folder that belong to no photo."""
    more = ", ..." if len(files) > _SHOWN else ""
    named = ", ".join(map(str, files[:_SHOWN]))
    return f"{folder}: {len(files):,} files of kind {kind} belong to no photo: {named}{more}"


def refuse(findings: Sequence[Finding], remedy: str) -> None:
    """Raises InputError that lists every finding, if there are any.

    Args:
        findings: files that can't be used.
        remedy: what else can be done, as the end of the message.
    """
    if not findings:
        return
    if len(findings) == 1:
        raise InputError(f"{findings[0]}{remedy}")
    listed = "".join(f"\n  {finding}" for finding in findings)
    raise InputError(f"{len(findings)} files can't be used:{listed}\nNothing was left out in silence{remedy}")
