"""Reads the CSV that describes a dataset of one's own: one line per image, with its split, labels and files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.data.build.authors_folders import NamedPhoto
from deskpro_jax.data.build.image_sources import DatasetListing, ImageSource, PartsFormat
from deskpro_jax.data.build.join_parts import join, no_parts
from deskpro_jax.data.schema import SPLITS, UNKNOWN_CLOTHES
from deskpro_jax.errors import InputError, MissingInputError

MANIFEST = "manifest.csv"
REQUIRED = ("path", "split", "identity", "camera", "clothes")
OPTIONAL = ("mask", "face", "restored")
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


def list_manifest(raw: Path, parts_dir: Path | None = None) -> DatasetListing:
    """Reads the CSV of a dataset of one's own, and joins masks and faces that the data preparation command made.

    Args:
        raw: the CSV or its folder.
        parts_dir: output of the data preparation command, or None.

    Returns:
        The images in the order of splits and lines. A mask is white off the clothes. Images are not opened.

    Raises:
        MissingInputError: there is no CSV.
        InputError: lines are wrong; all of them are listed.
    """
    file = find_manifest(raw)
    rows, notes = _read(file)
    errors: list[str] = []
    sources: list[ImageSource] = []
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for line, row in rows:
        source, problems = _source(file.parent, row)
        key = (source.split, source.image_id)
        if not problems and key in seen:
            other, path = seen[key]
            same = "the same image" if path == row["path"] else f"{path} but for the suffix; images go by the name"
            problems.append(f"path {row['path']!r} is in line {other} of the same split already ({same})")
        seen.setdefault(key, (line, row["path"]))
        errors.extend(f"line {line}: {problem}" for problem in problems)
        sources.append(source)
    if errors:
        listed = "".join(f"\n  {error}" for error in errors)
        raise InputError(f"{file} has {len(errors)} error{'s' * (len(errors) != 1)}:{listed}")
    for split in SPLITS:
        if not any(source.split == split for source in sources):
            raise InputError(f"{file} has no line of split {split}: each of {', '.join(SPLITS)} needs an image")
    sources.sort(key=lambda source: SPLITS.index(source.split))
    return _with_parts(file, sources, parts_dir, notes)


def _with_parts(file: Path, sources: list[ImageSource], parts_dir: Path | None, notes: list[str]) -> DatasetListing:
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
    photos = [
        NamedPhoto(s.split, s.image_id, s.identity, s.camera, s.clothes, Path(s.body), s.image_id, ()) for s in sources
    ]
    joined = join(photos, parts_dir)
    both = [
        made if not (source.face or source.restored_face) else ImageSource(**{**vars(source), "parts": made.parts})
        for source, made in zip(sources, joined.sources, strict=True)
    ]
    if faces:
        joined.origin["faces"] = f"{origin['faces']}; elsewhere: {joined.origin['faces']}"
    return DatasetListing(both, joined.parts_format, joined.origin, joined.findings, notes + joined.notes)


def _read(file: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Returns each line's number and its cells by column, and notes on the columns."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text ({error}): save it as CSV in UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}: save it as CSV, separated by commas") from error
    if missing := [name for name in REQUIRED if name not in header]:
        separator = " (is it separated by commas?)" if len(header) == 1 else ""
        raise InputError(
            f"{file}, line 1 has the columns {', '.join(header) or 'none'}{separator}; {', '.join(missing)} is missing"
        )
    if twice := [name for name in REQUIRED + OPTIONAL if header.count(name) > 1]:
        raise InputError(f"{file}, line 1 has column {twice[0]} twice: remove one")
    unknown = [name for name in header if name not in REQUIRED + OPTIONAL]
    for name in unknown:
        if question := did_you_mean(name.lower(), OPTIONAL):
            raise InputError(f"{file}, line 1: column {name!r} is unknown; {question}")
    notes = [f"{file}: columns {', '.join(unknown)} are not used"] if unknown else []
    if short := [line for line, cells in lines if len(cells) != len(header)]:
        listed = "".join(f"\n  line {line}" for line in short)
        raise InputError(f"{file}: {len(short)} lines don't have the {len(header)} values of line 1:{listed}")
    return [(line, dict(zip(header, map(str.strip, cells), strict=True))) for line, cells in lines], notes


def _source(folder: Path, row: dict[str, str]) -> tuple[ImageSource, list[str]]:
    """Returns the source of a line and the errors in the line."""
    problems = []
    if row["split"] not in SPLITS:
        question = did_you_mean(row["split"].lower(), SPLITS)
        problems.append(f"split is {row['split']!r}, expected one of {', '.join(SPLITS)}{question and f'; {question}'}")
    numbers = {}
    distractors = UNKNOWN if row["split"] == "gallery" else 0
    for name, lowest in (("identity", distractors), ("camera", UNKNOWN), ("clothes", UNKNOWN)):
        text = row[name] or ("" if name == "identity" else str(UNKNOWN))
        try:
            numbers[name] = int(text)
        except ValueError:
            problems.append(f"{name} is {text!r}, expected an integer")
            continue
        if not lowest <= numbers[name] < _LIMIT:
            problems.append(f"{name} is {numbers[name]}, expected {lowest} to {_LIMIT - 1}")
    files: dict[str, str | None] = {}
    for name, field in (("path", "body"), ("mask", "parts"), ("face", "face"), ("restored", "restored_face")):
        text = row.get(name, "")
        files[field] = str(folder / text) if text else None
        if name == "path" and not text:
            problems.append("path is empty")
        elif text and not (folder / text).is_file():
            problems.append(f"{name} {text!r}: no such file in {folder}")
    image_id = Path(row["path"]).with_suffix("").as_posix() if row["path"] else ""
    return (
        ImageSource(
            row["split"],
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
