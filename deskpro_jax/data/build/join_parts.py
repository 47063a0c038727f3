"""Joins masks, faces and restored faces that were made elsewhere to the photos of a dataset."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from deskpro_jax.data.build.authors_folders import NamedPhoto
from deskpro_jax.data.build.image_sources import (
    DatasetListing,
    Finding,
    ImageSource,
    PartsFormat,
    files_below,
    unused_note,
)
from deskpro_jax.data.build.prepared_folders import FOLDERS, TREES, read_description
from deskpro_jax.data.masks import AUTO
from deskpro_jax.data.photo_names import SUFFIXES, normalised_stem
from deskpro_jax.data.schema import CLOTH_MASK, SCHEMES
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.storage.files import read_json

SETTINGS = "prepare.json"
_TABLE = "images.parquet"  # written last; nothing is read from it
_KINDS = ("parts", "face", "restored_face")  # folders of the preparation command; fields of ImageSource
_PREPARED = {"mask": "parts", "lr_face": "face", "hr_face": "restored_face"}


class _Part(NamedTuple):
    kind: str
    file: Path


def without_parts(photos: Iterable[NamedPhoto]) -> DatasetListing:
    """Returns the photos as a dataset without masks and faces."""
    return DatasetListing([_source(photo) for photo in photos], PartsFormat(), no_parts())


def no_parts() -> dict[str, Any]:
    """Returns the metadata of a dataset without masks and faces."""
    return {"label_scheme": CLOTH_MASK.name, "masks": "none", "faces": "none"}


def join(
    photos: list[NamedPhoto], parts_dir: Path, cameras_from_gallery: bool = False, mask_kind: str = AUTO
) -> DatasetListing:
    """Joins the photos of a dataset with what `parts_dir` holds of them.

    Args:
        photos: the photos.
        parts_dir: what the data preparation command wrote, joined by the photo's path; or prepared folders
            (mask/, lr_face/, hr_face/), joined by the numbers in the names.
        cameras_from_gallery: whether names in prepared folders count cameras from the gallery's lowest number.
        mask_kind: what the user says that the masks are, AUTO for nothing. Label maps that were not made by the data
            preparation command have no settings file then.

    Returns:
        The joined sources; files that belong to no photo are counted in the notes.

    Raises:
        MissingInputError: the folder is missing or is neither of the two.
        InputError: none of its files belongs to a photo, or two belong to the same.
    """
    prepared = any((parts_dir / tree).is_dir() for tree in _PREPARED) and not (parts_dir / SETTINGS).exists()
    if prepared:
        return _join_prepared_folders(photos, parts_dir, cameras_from_gallery)
    if any((parts_dir / name).exists() for name in (SETTINGS, *_KINDS)):
        return _join_preparation(photos, parts_dir, mask_kind)
    problem = "is not a folder"
    if parts_dir.is_dir():
        problem = f"holds {', '.join(sorted(file.name for file in parts_dir.iterdir())[:8]) or 'nothing'}"
    raise MissingInputError(
        f"{parts_dir} {problem}: set data.parts_dir (--parts) to the output of the data preparation command "
        f"({SETTINGS}, {'/, '.join(_KINDS)}/), or to a folder with one or more of {'/, '.join(_PREPARED)}/, each with "
        f"{'/, '.join(FOLDERS.values())}/ in it"
    )


def read_settings(parts_dir: Path) -> dict[str, Any]:
    """Reads the settings file of the data preparation command.

    Raises:
        MissingInputError: there is none, as when the command has not finished.
        InputError: it can't be read or names a label scheme that is not known; none stands for no masks.
    """
    file = parts_dir / SETTINGS
    settings = read_json(file, "run the data preparation command again")
    if settings is None:
        raise MissingInputError(f"{file} is missing: let the data preparation command finish, it writes the file")
    if settings.get("label_scheme") not in (None, *SCHEMES):
        raise InputError(
            f"{file}: label_scheme is {settings.get('label_scheme')!r}, expected one of {', '.join(SCHEMES)}"
        )
    return settings


def _join_preparation(photos: list[NamedPhoto], parts_dir: Path, mask_kind: str) -> DatasetListing:
    made = mask_kind == AUTO or (parts_dir / SETTINGS).exists()
    settings = read_settings(parts_dir) if made else {}
    files: dict[str, dict[str, Path]] = {kind: {} for kind in _KINDS}
    for kind in _KINDS:
        root = parts_dir / kind
        for file in sorted(root.rglob("*")) if root.is_dir() else ():
            if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
                files[kind][normalised_stem(file.relative_to(root))] = file
    sources = [
        _source(photo, **{kind: str(paths[photo.path]) for kind, paths in files.items() if photo.path in paths})
        for photo in photos
    ]
    known = {photo.path for photo in photos}
    unused = {kind: [file for path, file in paths.items() if path not in known] for kind, paths in files.items()}
    _check_use(parts_dir, files, unused, f"paths like {photos[0].path}")
    kind = settings.get("label_scheme") or mask_kind
    if kind == AUTO and files["parts"]:
        raise InputError(
            f"{parts_dir / SETTINGS} has no label_scheme, but there are label maps: run the parser again, or say what "
            "they are with --mask-kind (data.mask_kind)"
        )
    notes = _notes(parts_dir, unused)
    if made and not (parts_dir / _TABLE).exists():
        notes.insert(0, f"{parts_dir}: no {_TABLE}: the data preparation has not finished, more masks may be to come")
    origin = no_parts() | {"preparation": settings}
    origin |= {key: settings[key] for key in ("label_scheme", "masks", "faces", "restored") if settings.get(key)}
    if files["parts"] and not settings.get("masks"):
        origin["masks"] = "as they came in parts/"
    parts_format = PartsFormat(kind, stated=True, same_size=made) if files["parts"] else PartsFormat()
    return DatasetListing(sources, parts_format, origin, notes=notes)


def _join_prepared_folders(photos: list[NamedPhoto], parts_dir: Path, cameras_from_gallery: bool) -> DatasetListing:
    parts, findings = _by_numbers(parts_dir)
    first_camera = 0
    if cameras_from_gallery:
        first_camera = min((numbers[1] for split, numbers in parts if split == "gallery"), default=0)
    taken: dict[tuple[str, tuple[int, ...]], NamedPhoto] = {}
    sources = []
    for photo in photos:
        of_photo: dict[str, str] = {}
        for numbers in _numbers_of(photo, first_camera):
            key = (photo.split, numbers)
            if key in parts:
                if key in taken:
                    raise InputError(
                        f"{photo.file} and {taken[key].file} have the same numbers {numbers}, so that "
                        f"{next(iter(parts[key])).file} may belong to either of them: give it the name of its photo"
                    )
                taken[key] = photo
                of_photo = {part.kind: str(part.file) for part in parts[key]}
                break
        sources.append(_source(photo, **of_photo))
    files: dict[str, dict[str, Path]] = {kind: {} for kind in _KINDS}
    unused: dict[str, list[Path]] = {kind: [] for kind in _KINDS}
    for key, of_key in parts.items():
        for part in of_key:
            files[part.kind][str(part.file)] = part.file
            if key not in taken:
                unused[part.kind].append(part.file)
    _check_use(parts_dir, files, unused, f"the numbers of the photos, as {_numbers_of(photos[0], first_camera)[0]}")
    recorded = read_description(parts_dir) or {} if files["parts"] else {}
    origin = {
        "label_scheme": recorded.get("label_scheme", CLOTH_MASK.name),
        "masks": "as they came in the prepared folders",
        "faces": "as they came in the prepared folders",
    }
    return DatasetListing(sources, PartsFormat(), origin, findings, _notes(parts_dir, unused))


def _by_numbers(parts_dir: Path) -> tuple[dict[tuple[str, tuple[int, ...]], list[_Part]], list[Finding]]:
    """Returns the files of prepared folders by split and the numbers in their names."""
    parts: dict[tuple[str, tuple[int, ...]], list[_Part]] = {}
    findings = []
    for tree, kind in _PREPARED.items():
        for split, folder in FOLDERS.items():
            for name, file in files_below(parts_dir / tree / folder):
                numbers = tuple(map(int, re.findall(r"\d+", file.stem)))
                if file.is_dir() or len(numbers) < 3 or file.suffix.lower() not in SUFFIXES:
                    findings.append(
                        Finding(str(file), ": not an image named PID_cCAM_FRAME or PID_CAM_FRAME: remove it")
                    )
                    continue
                same = parts.setdefault((split, numbers), [])
                if other := [part.file.name for part in same if part.kind == kind]:
                    findings.append(Finding(str(file), f": the same numbers as {other[0]} ({name}): remove one"))
                    continue
                same.append(_Part(kind, file))
    return parts, findings


def _numbers_of(photo: NamedPhoto, first_camera: int) -> list[tuple[int, ...]]:
    """Returns the numbers that a prepared file of a photo may have in its name, the surest first."""
    camera = photo.camera + first_camera
    named = (photo.identity, camera, *photo.frame)
    if photo.clothes < 0:
        return [named]
    full = tuple(map(int, re.findall(r"\d+", photo.image_id)))
    return [full, named] if len(full) > len(named) else [named]


def _check_use(parts_dir: Path, files: dict[str, dict[str, Path]], unused: dict[str, list[Path]], names: str) -> None:
    """Raises InputError when a whole tree, or all of them, belongs to no photo."""
    if not any(files.values()):
        raise InputError(f"{parts_dir} holds no images in {', '.join(TREES[1:])} or {', '.join(_KINDS)}")
    for kind, paths in files.items():
        if paths and len(unused[kind]) == len(paths):
            raise InputError(
                f"none of the {len(paths)} files of kind {kind} in {parts_dir} belongs to a photo, as "
                f"{next(iter(paths.values()))}: they must have {names}"
            )


def _notes(parts_dir: Path, unused: dict[str, list[Path]]) -> list[str]:
    return [unused_note(parts_dir, kind, files) for kind, files in unused.items() if files]


def _source(
    photo: NamedPhoto, parts: str | None = None, face: str | None = None, restored_face: str | None = None
) -> ImageSource:
    labels = (photo.identity, photo.camera, photo.clothes)
    source = ImageSource(photo.split, photo.image_id, *labels, str(photo.file), parts, face, restored_face)
    return dataclasses.replace(source, tracklet=photo.tracklet, scale=photo.scale)
