"""Reads the CSV that describes a dataset of one's own: one line per image, with its split, labels and files."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.data.build.authors_folders import NamedPhoto
from deskpro_jax.data.build.image_sources import DatasetListing, ImageSource, PartsFormat
from deskpro_jax.data.build.join_parts import join, no_parts
from deskpro_jax.data.masks import AUTO, MASK_KINDS
from deskpro_jax.data.photo_names import existing_path
from deskpro_jax.data.photo_tables import Label, Row, open_table
from deskpro_jax.data.schema import SPLITS, UNKNOWN_CLOTHES
from deskpro_jax.errors import InputError, MissingInputError

MANIFEST = "manifest.csv"
REQUIRED = ("path", "split", "identity", "camera", "clothes")
OPTIONAL = ("mask", "mask_kind", "face", "restored")
UNKNOWN = -1
_LIMIT = 2**31


def find_manifest(raw: Path) -> Path:
    """Returns the CSV: `raw` itself, or manifest.csv in the folder `raw`, or the only CSV there.

    Raises:
        MissingInputError: there is none or more than one.
    """
    if raw.is_file():
        return raw
    if (raw / MANIFEST).is_file():
        return raw / MANIFEST
    files = sorted(raw.glob("*.csv")) if raw.is_dir() else []
    if len(files) == 1:
        return files[0]
    content = f"{len(files)} CSV files ({', '.join(file.name for file in files[:4])})" if files else "no CSV file"
    raise MissingInputError(
        f"dataset folder: {raw} has {content}, expected {MANIFEST} with the columns {', '.join(REQUIRED)} and, where "
        f"there are any, {', '.join(OPTIONAL)}; paths are relative to the file's folder. Set data.raw_dir (--raw) to "
        "the file or its folder"
    )


def list_manifest(raw: Path, parts_dir: Path | None = None, mask_kind: str = AUTO) -> DatasetListing:
    """Reads the CSV of a dataset of one's own, and joins masks and faces that the data preparation command made.

    Args:
        raw: the CSV or its folder.
        parts_dir: output of the data preparation command, or None.
        mask_kind: as for `join_parts.join`.

    Returns:
        The images in the order of splits and lines. What their masks are comes from the column mask_kind, where there
        is one. Images are not opened.

    Raises:
        MissingInputError: there is no CSV.
        InputError: lines are wrong; all of them are listed.
    """
    file = find_manifest(raw)
    table = open_table(file, REQUIRED, OPTIONAL)
    notes = list(table.notes)
    errors: list[str] = []
    sources: list[ImageSource] = []
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for row in table.rows():
        source, problems = _source(file.parent, row)
        key, path = (source.split, source.image_id), row.text("path") or ""
        if not problems and key in seen:
            other, earlier = seen[key]
            same = "the same image" if earlier == path else f"{earlier} but for the suffix; images go by the name"
            problems.append(f"path {path!r} is in line {other} of the same split already ({same})")
        seen.setdefault(key, (row.line, path))
        errors.extend(f"line {row.line}: {problem}" for problem in problems)
        sources.append(source)
    kinds, wrong = _mask_kinds(table.rows())
    errors += wrong
    if errors:
        listed = "".join(f"\n  {error}" for error in errors)
        raise InputError(f"{file} has {len(errors)} error{'s' * (len(errors) != 1)}:{listed}")
    for split in SPLITS:
        if not any(source.split == split for source in sources):
            raise InputError(f"{file} has no line of split {split}: each of {', '.join(SPLITS)} needs an image")
    sources.sort(key=lambda source: SPLITS.index(source.split))
    listing = _with_parts(file, sources, parts_dir, notes, mask_kind)
    if kinds:
        listing.parts_format = PartsFormat(next(iter(kinds)), stated=True)
    return listing


def _mask_kinds(rows: Iterable[Row]) -> tuple[dict[str, int], list[str]]:
    """Returns the kinds in the column mask_kind, with the first line of each, and the errors in it."""
    kinds: dict[str, int] = {}
    for row in rows:
        if row.text("mask") and (kind := row.text("mask_kind") or AUTO) != AUTO:
            kinds.setdefault(kind, row.line)
    expected = f"expected one of {', '.join(MASK_KINDS)}"
    errors = [
        f"line {line}: mask_kind is {kind!r}, {expected}" for kind, line in kinds.items() if kind not in MASK_KINDS
    ]
    if len(kinds) > 1 and not errors:
        both = " and ".join(f"{kind} (line {line})" for kind, line in kinds.items())
        errors.append(f"mask_kind is {both}: a dataset has one kind")
    return kinds, errors


def _with_parts(
    file: Path, sources: list[ImageSource], parts_dir: Path | None, notes: list[str], mask_kind: str
) -> DatasetListing:
    masks, faces = (any(getattr(source, field) for source in sources) for field in ("parts", "face"))
    origin: dict[str, Any] = no_parts()
    if masks:
        origin["masks"] = f"as {file.name} lists them"
    if faces or any(source.restored_face for source in sources):
        origin["faces"] = f"as {file.name} lists them"
    if parts_dir is None:
        return DatasetListing(sources, PartsFormat(), origin, notes=notes)
    if masks:
        raise InputError(
            f"{file} has masks and {parts_dir} has label maps: a dataset has one kind; empty the column mask, or leave "
            "data.parts_dir (--parts) out"
        )
    names = [unicodedata.normalize("NFC", source.image_id) for source in sources]
    photos = [
        NamedPhoto(s.split, s.image_id, s.identity, s.camera, s.clothes, Path(s.body), name, ())
        for s, name in zip(sources, names, strict=True)
    ]
    joined = join(photos, parts_dir, mask_kind=mask_kind)
    both = [
        made if not (source.face or source.restored_face) else ImageSource(**{**vars(source), "parts": made.parts})
        for source, made in zip(sources, joined.sources, strict=True)
    ]
    if faces:
        joined.origin["faces"] = f"{origin['faces']}; elsewhere: {joined.origin['faces']}"
    return DatasetListing(both, joined.parts_format, joined.origin, joined.findings, notes + joined.notes)


def _whole_number(value: Label) -> int | None:
    """Returns a label as a number, zeros in front of it ("0007") left out; None where it is other text."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\d+", value, re.ASCII) else None
    return value


def _source(folder: Path, row: Row) -> tuple[ImageSource, list[str]]:
    """Returns the source of a line and the errors in the line."""
    problems = []
    split = row.text("split") or ""
    if split not in SPLITS:
        question = did_you_mean(split.lower(), SPLITS)
        problems.append(f"split is {split!r}, expected one of {', '.join(SPLITS)}{question and f'; {question}'}")
    numbers = {}
    distractors = UNKNOWN if split == "gallery" else 0
    for name, lowest in (("identity", distractors), ("camera", UNKNOWN), ("clothes", UNKNOWN)):
        value = row.cells[name]
        if value is None and name != "identity":
            value = UNKNOWN
        number = _whole_number(value)
        if number is None:
            problems.append(f"{name} is {value or ''!r}, expected an integer")
            continue
        numbers[name] = number
        if not lowest <= number < _LIMIT:
            problems.append(f"{name} is {number}, expected {lowest} to {_LIMIT - 1}")
    files: dict[str, str | None] = {}
    for name, field in (("path", "body"), ("mask", "parts"), ("face", "face"), ("restored", "restored_face")):
        text = row.text(name) or ""
        file = existing_path(folder, text)
        files[field] = str(file) if text else None
        if name == "path" and not text:
            problems.append("path is empty")
        elif text and not file.is_file():
            problems.append(f"{name} {text!r}: no such file in {folder}")
    path = row.text("path")
    image_id = Path(path).with_suffix("").as_posix() if path else ""
    return (
        ImageSource(
            split,
            image_id,
            numbers.get("identity", 0),
            numbers.get("camera", UNKNOWN),
            numbers.get("clothes", UNKNOWN_CLOTHES),
            body=files["body"] or "",
            parts=files["parts"],
            face=files["face"],
            restored_face=files["restored_face"],
        ),
        problems,
    )
