"""Lists the photos that a command is given: a folder, a pattern, one photo, a text file, a CSV or Parquet table."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from deskpro_jax.data.photo_names import (
    SUFFIXES,
    count_others,
    existing_path,
    files_below_folder,
    is_photo_name,
    normalised_stem,
    passed_over,
)
from deskpro_jax.data.photo_tables import LABELS, PATH, Label, Row, open_table
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.storage.csv_file import SEPARATORS, text_lines

_LISTS = (".txt", ".lst")
_TABLES = (".csv", ".tsv", ".parquet")


class Listed(NamedTuple):
    """One photo of a list.

    Attributes:
        image_id: its name: the path below the list's root with forward slashes and no suffix, or what a table says.
        path: where it is.
        face: where its face is, where a table says so.
        identity: the person, None where it is not known; likewise `camera`, `clothes` and `tracklet`.
    """

    image_id: str
    path: str
    face: str | None = None
    identity: Label = None
    camera: Label = None
    clothes: Label = None
    tracklet: Label = None


@dataclass(frozen=True)
class Listing:
    """A list of photos that can be gone through any number of times, without holding it in memory.

    Attributes:
        source: where it comes from, for messages.
        entries: starts again at the first photo.
        others: counts the files beside them that are not taken for photos, by suffix.
        notes: what the user should know of it: columns of a table that are not used.
    """

    source: str
    entries: Callable[[], Iterator[Listed]]
    others: Callable[[], Mapping[str, int]] = dict
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Listed]:
        return self.entries()


def list_photos(source: str | Path, root: str | Path | None = None) -> Listing:
    """Finds out what kind of list a source is.

    Args:
        source: a folder (every photo in it, at any depth), a pattern (`*`, `**`), a photo, a `.txt` with a path a line,
            or a `.csv` or `.parquet` with a column `path` and optionally `image_id`, `face`, `identity`, `camera`,
            `clothes`, `tracklet`. Relative paths are relative to `root`; without it to the list's own folder if the
            first is there, else to the current folder.
        root: folder that names are relative to; the folder itself, the part of a pattern before its first `*`, or for
            lists the folder that all absolute paths lie in.

    Returns:
        The list, at least one photo long.

    Raises:
        MissingInputError: there is nothing at `source`.
        InputError: there are no photos, two have the same name, or a table is not as it should be.
    """
    path = Path(source).expanduser()
    base = None if root is None else Path(root).expanduser()
    if base is not None and not base.is_dir():
        raise MissingInputError(f"no folder at {base}: correct --root.")
    if path.is_dir():
        listing = Listing(
            str(source), lambda: _in_folder(path, base or path), lambda: count_others(files_below_folder(path))
        )
    elif path.is_file():
        listing = _from_file(path, base)
    elif glob.has_magic(str(path)):
        listing = Listing(
            str(source), lambda: _matching(str(path), base), lambda: count_others(_files_matching(str(path)))
        )
    else:
        raise MissingInputError(f"no photos at {source}: expected a folder, a photo, a pattern or a list.")
    if next(iter(listing), None) is None:
        others = passed_over(listing.others())
        raise InputError(
            f"{source} holds no photo: expected files ending in {', '.join(SUFFIXES)}{others and f'; {others}'}."
        )
    _check_unique(listing)
    return listing


def _check_unique(listing: Listing) -> None:
    """Raises InputError where two photos of a list have the same name or the same path."""
    names, paths = array("Q"), array("Q")
    for photo in listing:
        names.append(_hash(unicodedata.normalize("NFC", photo.image_id)))
        paths.append(_hash(os.path.abspath(photo.path)))
    for hashes, key, same in (
        (paths, lambda photo: os.path.abspath(photo.path), "are the same file, listed twice: remove one"),
        (names, lambda photo: unicodedata.normalize("NFC", photo.image_id), ""),
    ):
        values, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
        if not (counts > 1).any():
            continue
        repeated = set(values[counts > 1].tolist())
        first: dict[str, Listed] = {}
        for photo in listing:
            if _hash(key(photo)) in repeated and (other := first.setdefault(key(photo), photo)) is not photo:
                raise InputError(f"{listing.source}: {other.path} and {photo.path} {same or _same_name(other, photo)}.")


def _same_name(one: Listed, other: Listed) -> str:
    stems = {normalised_stem(photo.path) for photo in (one, other)}
    if len(stems) == 1:
        return (
            "differ only in their suffix, so they would have the same name: rename or remove one, or give a table with"
            " a column image_id"
        )
    return f"have the same image_id {one.image_id!r}: rename one"


def _hash(text: str) -> int:
    """Returns 64 bits, so that long lists can be compared in little memory."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=8).digest(), "little")


def _from_file(path: Path, root: Path | None) -> Listing:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        entry = Listed(_name(path.name if root is None else _below(path, root)), str(path))
        return Listing(str(path), lambda: iter([entry]))
    if suffix not in (*_LISTS, *_TABLES):
        raise InputError(
            f"{path}: expected a photo ({', '.join(SUFFIXES)}) or a list ({', '.join((*_LISTS, *_TABLES))})."
        )
    rows, notes = (lambda: _lines(path)), ()  # type: Callable[[], Iterator[Row]], tuple[str, ...]
    if suffix in _TABLES or _names_columns(path):
        table = open_table(path, (PATH,), ("image_id", "face", *LABELS))
        rows, notes = table.rows, table.notes
    first = next(rows(), None)
    if first is None:
        raise InputError(f"{path} lists no photo.")
    start = root or _start(path, _path_of(first))
    names_from = root or _common(_path_of(row) for row in rows())
    return Listing(str(path), lambda: _entries(rows(), start, names_from), notes=notes)


def _names_columns(path: Path) -> bool:
    """Returns whether the first line of a text file is that of a table: several names, `path` among them."""
    first = next((line for line in text_lines(path) if line.strip()), "")
    return any(PATH in (cell.strip(' "\r\n') for cell in first.split(mark)) for mark in SEPARATORS if mark in first)


def _path_of(row: Row) -> str:
    path = row.text(PATH)
    if path is None:
        raise InputError(f"{row.where}: the path is empty.")
    return path


def _start(path: Path, first: str) -> Path:
    """Returns the folder that relative paths of a list start from."""
    return path.parent if existing_path(path.parent, first).exists() else Path()


def _common(paths: Iterable[str]) -> Path | None:
    """Returns the folder that all absolute paths lie in."""
    common: str | None = None
    for path in paths:
        if os.path.isabs(path):
            folder = os.path.dirname(path)
            common = folder if common is None else os.path.commonpath([common, folder])
    return None if common is None else Path(common)


def _entries(rows: Iterator[Row], start: Path, names_from: Path | None) -> Iterator[Listed]:
    for row in rows:
        photo, name, face = _path_of(row), row.text("image_id"), row.text("face")
        if name is None:
            below = _below(Path(photo), names_from) if names_from and os.path.isabs(photo) else photo
            name = _name(os.path.normpath(below))
        labels = (row.cells.get(column) for column in LABELS)
        yield Listed(name, str(existing_path(start, photo)), face and str(existing_path(start, face)), *labels)


def _below(path: Path, root: Path) -> str:
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise InputError(f"{path} is not in {root}: correct --root.") from None


def _name(path: str) -> str:
    return str(PurePosixPath(Path(path).as_posix()).with_suffix(""))


def _lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(text_lines(path), 1):
        if text := line.strip():
            yield Row(path, "line", number, {PATH: text})


def _files_matching(pattern: str) -> Iterator[str]:
    """Yields the files that a pattern matches, in order."""
    for path in sorted(glob.iglob(pattern, recursive=True)):
        if os.path.isfile(path):
            _check_utf8(path)
            yield path


def _matching(pattern: str, root: Path | None) -> Iterator[Listed]:
    parts = Path(pattern).parts
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    for path in _files_matching(pattern):
        if is_photo_name(path):
            yield Listed(_name(_below(Path(path), root or fixed)), path)


def _in_folder(folder: Path, root: Path) -> Iterator[Listed]:
    """Yields the photos below a folder in the order of the names, links followed, hidden ones left out."""
    start = _below(folder, root)
    prefix = "" if start == "." else f"{start}/"
    for name in files_below_folder(folder):
        if is_photo_name(name):
            yield Listed(_name(prefix + name), str(folder / name))


def _check_utf8(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"the name {path!a} is not valid UTF-8: rename the file.") from None
