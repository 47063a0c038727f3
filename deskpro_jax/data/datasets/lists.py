"""Photos that the authors of a dataset list in text files, one row per photo or per tracklet, read strictly."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from deskpro_jax.data.photo_names import is_photo_name
from deskpro_jax.data.schema import UNKNOWN_TRACKLET
from deskpro_jax.errors import InputError

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_SHOWN = 20  # wrong rows that an error lists


class ListedPhoto(NamedTuple):
    """A photo of a dataset that comes with lists.

    Attributes:
        split: one of `schema.SPLITS`.
        path: below the root, "/" between its parts.
        image_id: unique within the split.
        identity: number of the person.
        camera: number of the camera.
        outfit: label of the outfit, "" where it is not known.
        tracklet: number of the tracklet.
        scale: how large people are in the tracklet, -1 where it is not known.
        where: file and line that list it.
    """

    split: str
    path: str
    image_id: str
    identity: int
    camera: int
    outfit: str
    tracklet: int = UNKNOWN_TRACKLET
    scale: int = -1
    where: str = ""


class ListRow(NamedTuple):
    """A row of a list file: its file and line for messages, and its fields."""

    where: str
    cells: tuple[str, ...]


@dataclasses.dataclass
class ListReader:
    """Reads the list files of a dataset, and collects what is wrong with their rows.

    Attributes:
        root: folder that the lists and photos are below.
        notes: remarks for the person who builds.
        errors: wrong rows, each with its file and line.
    """

    root: Path
    notes: list[str] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)

    def rows(self, name: str, cells: int | None, separator: str | None, expected: str) -> Iterator[ListRow]:
        """Yields the rows of a list that have the right number of cells; blank lines may end it.

        Args:
            name: of the file below the root.
            cells: number of cells in a row; None for any.
            separator: of the cells; None for white space.
            expected: a row in words, for errors.

        Raises:
            InputError: the file is not text.
        """
        path = self.root / name
        try:
            lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is no text file ({error}): get it again.") from error
        for number, line in enumerate(lines, 1):
            row = ListRow(f"{path}, line {number}", tuple(cell.strip() for cell in line.strip().split(separator)))
            if line.strip() and cells in (None, len(row.cells)):
                yield row
            else:
                count = len(row.cells) if line.strip() else 0
                self.wrong(row, f"has {count} fields ({line.strip()[:60]!r}), expected {expected}")

    def wrong(self, row: ListRow, problem: str) -> None:
        """Notes what is wrong with a row."""
        self.errors.append(f"{row.where}: {problem}")

    def number(self, row: ListRow, cell: int, what: str, least: int = 0) -> int | None:
        """Returns a cell as a whole number, also where it is written as a float ("7.0"), or None where it is wrong.

        Args:
            row: the row.
            cell: position of the cell.
            what: its meaning, for the error.
            least: the smallest number that is right.
        """
        text = row.cells[cell]
        value = float(text) if _NUMBER.fullmatch(text) else float("nan")
        if not value.is_integer() or not least <= value < 2**31:
            self.wrong(row, f"{what} is {text!r}, expected an integer >= {least}")
            return None
        return int(value)

    def frames(self, row: ListRow, folder: str) -> list[str]:
        """Returns the paths of all photos in the folder of a tracklet, in the order of their names.

        Args:
            row: that names the folder; an empty one is noted, a missing one is wrong.
            folder: below the root.
        """
        path = self.root / folder
        if not path.is_dir():
            self.wrong(row, f"there is no folder {path}")
            return []
        names = sorted(name for name in os.listdir(path) if is_photo_name(name))
        if not names:
            self.notes.append(f"{path} holds no photo: a tracklet without frames left out ({row.where})")
        return [f"{folder}/{name}" for name in names]

    def check(self) -> None:
        """Raises InputError that lists the wrong rows, if there are any."""
        if not self.errors:
            return
        listed = "".join(f"\n  {error}" for error in self.errors[:_SHOWN])
        more = f"\n  and {len(self.errors) - _SHOWN:,} more" if len(self.errors) > _SHOWN else ""
        raise InputError(f"{len(self.errors):,} rows of the lists in {self.root} are wrong:{listed}{more}")


PhotoReader = Callable[[ListReader], Sequence[ListedPhoto]]
