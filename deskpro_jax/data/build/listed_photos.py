"""Lists the photos of a dataset whose authors name them in list files, and compares the lists with the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deskpro_jax.data.build.authors_folders import NamedPhoto
from deskpro_jax.data.build.image_sources import Finding
from deskpro_jax.data.build.outfits import number_outfits
from deskpro_jax.data.datasets.lists import ListedPhoto, ListReader
from deskpro_jax.data.datasets.spec import DatasetSpec
from deskpro_jax.data.photo_names import files_below_folder, is_photo_name, normalised_stem
from deskpro_jax.data.schema import SPLITS
from deskpro_jax.errors import InputError, MissingInputError


def list_photos(spec: DatasetSpec, raw_dir: Path) -> tuple[list[NamedPhoto], list[Finding], list[str]]:
    """Lists the photos that the lists of a dataset name.

    Args:
        spec: the dataset; it has `read_photos`.
        raw_dir: the folder that holds the lists and photos, or the folder of the archive with them.

    Returns:
        The photos in the order of splits and lists, the files that are listed and missing, and remarks: photos that
        are in no list, and what the lists say of photos that are left out.

    Raises:
        MissingInputError: a list is missing, or all photos of a split are.
        InputError: rows of the lists are wrong; they are named with file and line.
    """
    assert spec.read_photos is not None
    lists = ListReader(_root(spec, raw_dir))
    listed = spec.read_photos(lists)
    lists.check()
    present = _photos_below(lists.root, {photo.path.partition("/")[0] for photo in listed})
    photos, findings = _existing(lists.root, listed, present)
    for split in SPLITS:
        of_split = [photo for photo in listed if photo.split == split]
        if not of_split:
            raise InputError(f"the lists in {lists.root} name no photo of split {split}: get them again")
        if not any(photo.split == split for photo in photos):
            raise MissingInputError(
                f"dataset {spec.name}: none of the {len(of_split):,} {split} photos is there, as"
                f" {lists.root / of_split[0].path} ({of_split[0].where}). Get the photos ({spec.origin})"
            )
    clothes = number_outfits([photo.outfit for photo in photos])
    named = [
        NamedPhoto(
            photo.split,
            photo.image_id,
            photo.identity,
            photo.camera,
            number,
            lists.root / photo.path,
            normalised_stem((lists.root / photo.path).relative_to(raw_dir)),
            (),
            photo.outfit,
            photo.tracklet,
            photo.scale,
        )
        for photo, number in zip(photos, clothes, strict=True)
    ]
    if unlisted := sorted(present - {photo.path for photo in listed}):
        lists.notes.append(f"{lists.root}: {len(unlisted):,} photos in no list left out, as {unlisted[0]}")
    return named, findings, lists.notes


def _root(spec: DatasetSpec, raw_dir: Path) -> Path:
    """Returns the folder that holds all list files.

    Raises:
        MissingInputError: one is missing; the message names where to get the dataset.
    """
    for root in spec.roots:
        if all((raw_dir / root / name).is_file() for name in spec.list_files):
            return raw_dir / root
    present = [root for root in spec.roots if any((raw_dir / root / name).is_file() for name in spec.list_files)]
    path = raw_dir / (present[0] if present else spec.roots[0])
    missing = next(name for name in spec.list_files if not (path / name).is_file())
    raise MissingInputError(
        f"dataset {spec.name}: list {path / missing} is missing. Get the dataset ({spec.origin}) and set data.raw_dir"
        f" (--raw) to the folder with {spec.expected_folders()} in it"
    )


def _photos_below(root: Path, folders: set[str]) -> set[str]:
    """Returns the paths below the root of all photos in some of its folders, at any depth."""
    return {
        f"{folder}/{name}"
        for folder in folders
        if (root / folder).is_dir()
        for name in files_below_folder(root / folder)
        if is_photo_name(name)
    }


def _existing(root: Path, listed: Sequence[ListedPhoto], present: set[str]) -> tuple[list[ListedPhoto], list[Finding]]:
    """Returns the listed photos that are there and new, and findings for the other ones."""
    photos: dict[tuple[str, str], ListedPhoto] = {}
    findings = []
    for photo in listed:
        if photo.path not in present:
            findings.append(Finding(str(root / photo.path), f" is missing: {photo.where} lists it"))
        elif (first := photos.setdefault((photo.split, photo.image_id), photo)) is not photo:
            findings.append(
                Finding(str(root / photo.path), f" is listed twice, in {first.where} and in {photo.where}: remove one")
            )
    return list(photos.values()), findings
