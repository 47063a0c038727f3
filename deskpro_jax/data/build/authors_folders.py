"""Lists the photos of a dataset in the folders its authors distribute, with what each file name means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deskpro_jax.data.build.image_sources import Finding, files_below
from deskpro_jax.data.build.outfits import number_outfits
from deskpro_jax.data.datasets.spec import DatasetSpec, PhotoFolder
from deskpro_jax.data.photo_names import SUFFIXES, normalised_stem
from deskpro_jax.data.schema import UNKNOWN_CLOTHES, UNKNOWN_TRACKLET
from deskpro_jax.errors import InputError, MissingInputError

UNKNOWN = -1  # camera of a dataset without cameras


class NamedPhoto(NamedTuple):
    """A photo and the labels in its name.

    Attributes:
        split: one of `schema.SPLITS`.
        image_id: unique within the split.
        identity: number of the person.
        camera: number of the camera.
        clothes: number of the outfit, -1 when not known.
        file: the photo.
        path: relative to the raw folder, as `photo_names.normalised_stem` gives it.
        frame: the numbers that tell images of one person and camera apart.
        outfit: the label of the outfit that `clothes` is the number of; "" where it has no label of its own.
        tracklet: number of the tracklet, -1 when not known.
        scale: how large people are in the tracklet, -1 when not known.
    """

    split: str
    image_id: str
    identity: int
    camera: int
    clothes: int
    file: Path
    path: str
    frame: tuple[int, ...]
    outfit: str = ""
    tracklet: int = UNKNOWN_TRACKLET
    scale: int = -1


def list_photos(spec: DatasetSpec, raw_dir: Path, with_val: bool = False) -> tuple[list[NamedPhoto], list[Finding]]:
    """Lists the photos of a dataset as its authors distribute it.

    Args:
        spec: the dataset; it has `folders`.
        raw_dir: the folder that holds the authors' folders.
        with_val: adds the images of a validation split to train (PRCC).

    Returns:
        The photos in the order of splits, folders and names, and the files whose names do not match.

    Raises:
        MissingInputError: a folder is missing.
        InputError: a split has no images, or there is no validation split.
    """
    if with_val and not spec.validation_folders:
        raise InputError(f"dataset {spec.name} has no validation images to add to train: leave --with-val out")
    folders = (*spec.folders, *(spec.validation_folders if with_val else ()))
    root = _root(spec, raw_dir, folders)
    photos: dict[str, dict[str, NamedPhoto]] = {folder.split: {} for folder in folders}
    findings: list[Finding] = []
    for name in dict.fromkeys(folder.folder for folder in folders):
        same = [folder for folder in folders if folder.folder == name]  # PRCC's test/ holds query and gallery
        for item in _list_folder(spec, root / name, same, raw_dir):
            if isinstance(item, Finding):
                findings.append(item)
            elif (first := photos[item.split].setdefault(item.image_id, item)) is not item:
                findings.append(Finding(str(item.file), f": the same image as {first.file}: remove one"))
    for split, by_id in photos.items():
        if not by_id:
            paths = " and ".join(dict.fromkeys(str(root / f.folder) for f in folders if f.split == split))
            wrong = f" ({len(findings)} files have other names, first {findings[0].file})" if findings else ""
            expected = " or ".join(dict.fromkeys(f.expected for f in folders if f.split == split))
            raise InputError(
                f"{paths} holds no images of split {split}, named {expected}{wrong}: "
                f"put the {split} images of {spec.name} there"
            )
    listed = [photo for by_id in photos.values() for photo in by_id.values()]
    clothes = number_outfits([photo.outfit for photo in listed])
    return [
        photo._replace(clothes=number) if photo.outfit else photo for photo, number in zip(listed, clothes, strict=True)
    ], findings


def left_out(spec: DatasetSpec, raw_dir: Path) -> list[str]:
    """Returns a line for each folder of validation images that was not asked for."""
    notes = []
    for folder in spec.validation_folders:
        for root in spec.roots:
            path = raw_dir / root / folder.folder
            count = sum(1 for _ in files_below(path, 1 + folder.pattern.count("/")))
            if count:
                notes.append(f"{path}: {count:,} images left out (--with-val adds them)")
                break
    return notes


def _root(spec: DatasetSpec, raw_dir: Path, folders: tuple[PhotoFolder, ...]) -> Path:
    """Returns the folder that holds all of `folders`.

    Raises:
        MissingInputError: one is missing; the message names where to get the photos.
    """
    names = tuple(dict.fromkeys(folder.folder for folder in folders))
    for root in spec.roots:
        if all((raw_dir / root / name).is_dir() for name in names):
            return raw_dir / root
    present = [root for root in spec.roots if any((raw_dir / root / name).is_dir() for name in names)]
    path = raw_dir / (present[0] if present else spec.roots[0])
    missing = next(name for name in names if not (path / name).is_dir())
    hint = ""
    if raw_dir.is_dir() and not present:
        inside = sorted(child for child in raw_dir.iterdir() if child.is_dir())
        fits = [child for child in inside for root in spec.roots if (child / root / names[0]).is_dir()]
        listed = ", ".join(child.name for child in inside[:8]) or "no folders"
        hint = f" Did you mean {fits[0]}?" if fits else f" {raw_dir} has {listed}."
    raise MissingInputError(
        f"dataset {spec.name}: folder {path / missing} is missing.{hint} Get the photos ({spec.origin}) and set "
        f"data.raw_dir (--raw) to the folder with {spec.expected_folders()} in it"
    )


def _list_folder(
    spec: DatasetSpec, path: Path, folders: list[PhotoFolder], raw_dir: Path
) -> Iterator[NamedPhoto | Finding]:
    """Yields the photos of a folder on disk, and its files whose names match none of `folders`."""
    for name, file in files_below(path, 1 + folders[0].pattern.count("/")):
        stem, dot, suffix = name.rpartition(".")
        matches = [(folder, match) for folder in folders if (match := re.fullmatch(folder.pattern, stem))]
        if file.is_dir() or not matches or f"{dot}{suffix}".lower() not in SUFFIXES:
            problem = "this is a folder" if file.is_dir() else "the name does not match"
            expected = " or ".join(folder.expected for folder in folders)
            suffixes = ", ".join(SUFFIXES)
            yield Finding(str(file), f": {problem}, expected {expected} with one of {suffixes}: rename or remove it")
            continue
        folder, match = matches[0]
        groups = match.groupdict()
        if "letter" in groups:
            camera, clothes = spec.letters[groups["letter"]]
        else:
            camera, clothes = int(groups.get("camera", UNKNOWN)), UNKNOWN_CLOTHES
        yield NamedPhoto(
            split=folder.split,
            image_id=folder.image_id.format(**groups),
            identity=int(groups["identity"]),
            camera=camera,
            clothes=clothes,
            file=file,
            path=normalised_stem(file.relative_to(raw_dir)),
            frame=tuple(map(int, re.findall(r"\d+", groups["frame"]))),
            outfit=groups.get("clothes", ""),
        )
