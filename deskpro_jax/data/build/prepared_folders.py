"""Reads prepared folders: photos, faces and masks in four trees of files that share their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from deskpro_jax.data.build.image_sources import (
    DatasetListing,
    Finding,
    ImageSource,
    PartsFormat,
    files_below,
    unused_note,
)
from deskpro_jax.data.datasets.spec import DatasetSpec
from deskpro_jax.data.photo_names import SUFFIXES, normalised_stem
from deskpro_jax.data.photo_tables import open_table
from deskpro_jax.data.schema import CLOTH_MASK, LIP, SCHEMES, SPLITS, UNKNOWN_CLOTHES
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.storage.files import read_json

TREES = ("imgs", "lr_face", "hr_face", "mask")
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
_LABELS = ("identity", "camera", "clothes")
MANIFEST_COLUMNS = ("image_id", "split", *_LABELS)
_FIELDS = {"mask": "parts", "parts": "parts", "lr_face": "face", "hr_face": "restored_face"}


def is_prepared(raw_dir: Path) -> bool:
    """Returns whether a folder has one of the four trees, and so not an authors' layout."""
    return any((raw_dir / tree).is_dir() for tree in TREES)


def how_to_get(spec: DatasetSpec, missing: Path | None) -> str:
    """Returns the error text for a missing prepared folder, or for an empty data.raw_dir (`missing` is None)."""
    if missing is None and spec.has_layout:
        return (
            f"dataset {spec.name}: data.raw_dir is empty. Get the photos ({spec.origin}) and set data.raw_dir (--raw) "
            f"to the folder with {spec.expected_folders()} in it, and data.parts_dir (--parts) "
            f"to masks and faces made from them; or data.raw_dir to prepared folders ({'/, '.join(TREES)}/), which "
            "have all (https://github.com/KimbingNg/DeskPro)"
        )
    problem = "data.raw_dir is empty" if missing is None else f"folder {missing} is missing"
    return (
        f"dataset {spec.name}: {problem}. Get the photos ({spec.origin}) and the masks and faces made from them (the "
        "prepared archive linked at https://github.com/KimbingNg/DeskPro holds all), and set data.raw_dir to "
        f"a folder with {'/, '.join(TREES)}/, each with {'/, '.join(FOLDERS.values())}/ in it (empty where there are "
        f"none), and files named {spec.prepared.expected} with .jpg, the same name in every tree"
    )


def check_prepared(raw_dir: Path, spec: DatasetSpec) -> None:
    """Raises MissingInputError, saying what to get and where to put it, unless all folders are there."""
    for folder in (raw_dir / tree / name for tree in TREES for name in FOLDERS.values()):
        if not folder.is_dir():
            raise MissingInputError(how_to_get(spec, folder))


def list_prepared(root: Path, spec: DatasetSpec) -> DatasetListing:
    """Lists prepared folders, train first, then query, then gallery, each in the order of the names.

    With `parts/` and `manifest.csv`, which `prepared_examples.write_prepared` adds, labels and clothes come from there;
    without `parts/` the masks are used; without `manifest.csv` the names give identity and camera, and the clothes are
    unknown.

    Args:
        root: folder with imgs/, lr_face/, hr_face/ and mask/.
        spec: the dataset, which decides how files are named.

    Raises:
        MissingInputError: a folder is missing.
        InputError: the trees or the manifest do not fit together.
    """
    check_prepared(root, spec)
    manifest = _read_manifest(root)
    has_parts = (root / "parts").is_dir()
    findings: list[Finding] = []
    sources, notes = [], list[str]()
    for split in SPLITS:
        kinds = [tree for tree in (*TREES, *(("parts",) if has_parts else ())) if tree != "mask" or not has_parts]
        trees = {tree: _files(root / tree / FOLDERS[split], spec, findings) for tree in kinds}
        photos = trees.pop("imgs")
        if not photos:
            wrong = f" with such a name: {findings[0]}" if findings else ""
            raise InputError(f"{root / 'imgs' / FOLDERS[split]} holds no images{wrong}: put the {split} images there")
        for tree, files in trees.items():
            if files and not files.keys() & photos.keys():
                raise InputError(
                    f"no file in {root / tree / FOLDERS[split]} shares its name with one in "
                    f"{root / 'imgs' / FOLDERS[split]}: the trees must use the same names"
                )
            if unused := [file for name, file in files.items() if name not in photos]:
                notes.append(unused_note(root / tree / FOLDERS[split], tree, unused))
        _check_manifest(root, split, photos, manifest)
        for image_id, photo in photos.items():
            numbers = manifest[split, image_id] if manifest else (*_numbers(image_id, spec), UNKNOWN_CLOTHES)
            of_photo = {_FIELDS[tree]: str(files[image_id]) for tree, files in trees.items() if image_id in files}
            parts, face, restored = (of_photo.get(field) for field in ("parts", "face", "restored_face"))
            identity, camera, clothes = numbers
            sources.append(ImageSource(split, image_id, identity, camera, clothes, str(photo), parts, face, restored))
    described = origin(root)
    parts_format = PartsFormat(described["label_scheme"]) if has_parts else PartsFormat()
    return DatasetListing(sources, parts_format, described, findings, notes)


def read_description(root: Path) -> dict[str, Any] | None:
    """Reads dataset.json in prepared folders; None where there is none.

    Raises:
        InputError: it is damaged, or names no known label scheme.
    """
    file = root / "dataset.json"
    stored = read_json(file, "write the folders again")
    if stored is not None and stored.get("label_scheme") not in SCHEMES:
        raise InputError(
            f"{file}: label_scheme is {stored.get('label_scheme')!r}, expected one of {', '.join(SCHEMES)}"
        )
    return stored


def origin(raw_dir: Path) -> dict[str, Any]:
    """Returns the metadata of prepared folders: labels, masks, faces and seed."""
    return read_description(raw_dir) or {
        "label_scheme": LIP.name if (raw_dir / "parts").is_dir() else CLOTH_MASK.name,
        "masks": "as they came in the prepared folders",
        "faces": "as they came in the prepared folders",
        "seed": None,
    }


def _files(folder: Path, spec: DatasetSpec, findings: list[Finding]) -> dict[str, Path]:
    """Returns the images of a folder by name; those with other names become findings."""
    names = spec.prepared
    result: dict[str, Path] = {}
    for _, file in files_below(folder):
        stem = normalised_stem(file.name)
        if file.is_dir() or not re.fullmatch(names.pattern, stem) or file.suffix.lower() not in SUFFIXES:
            expected = f"{names.expected}, with one of {', '.join(SUFFIXES)}: rename or remove it (dataset {spec.name})"
            findings.append(Finding(str(file), f": the name does not match {expected}"))
        elif stem in result:
            findings.append(Finding(str(file), f" and {result[stem].name} are the same image: remove one"))
        else:
            result[stem] = file
    return result


def _numbers(image_id: str, spec: DatasetSpec) -> tuple[int, int]:
    match = re.fullmatch(spec.prepared.pattern, image_id)
    assert match is not None
    return int(match[1]), int(match[2])


def _read_manifest(root: Path) -> dict[tuple[str, str], tuple[int, int, int]]:
    file = root / "manifest.csv"
    if not file.exists():
        return {}
    result = {}
    for row in open_table(file, MANIFEST_COLUMNS).rows():
        identity, camera, clothes = (row.cells[name] for name in _LABELS)
        if not (isinstance(identity, int) and isinstance(camera, int) and isinstance(clothes, int)):
            raise InputError(
                f"{row.where}: identity, camera and clothes are {identity!r}, {camera!r} and {clothes!r};"
                " one is not an integer."
            )
        result[row.text("split") or "", row.text("image_id") or ""] = (identity, camera, clothes)
    return result


def _check_manifest(root: Path, split: str, photos: dict[str, Path], manifest: dict[tuple[str, str], Any]) -> None:
    if not manifest:
        return
    listed = {image_id for listed_split, image_id in manifest if listed_split == split}
    if strange := sorted(listed ^ photos.keys()):
        where = "manifest.csv but has no file" if strange[0] in listed else "a file but not in manifest.csv"
        raise InputError(f"{root}: {split} image {strange[0]} is in {where} ({len(strange)} such): write both again")
