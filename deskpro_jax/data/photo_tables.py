"""Reads tables of photos, CSV or Parquet: columns by name, cells as text, labels as whole numbers or text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from deskpro_jax.config.suggestions import closest
from deskpro_jax.errors import InputError
from deskpro_jax.storage.csv_file import SEPARATORS, read_csv
from deskpro_jax.storage.parquet import open_parquet

PATH = "path"
LABELS = ("identity", "camera", "clothes", "tracklet")
Label = int | str | None

# What other tools and papers call these columns, in lower case without anything between the words.
_USUAL_NAMES = {
    PATH: "image img photo file filename filepath imagepath imgpath photopath imagefile imagename imagefilename impath"
    " fname relpath relativepath",
    "image_id": "imgid photoid",
    "identity": "id ids ident pid pids personid person identityid identities label labels subject subjectid",
    "camera": "cam cams camid camids cameraid cameras camidx camno camname cameraname cid",
    "clothes": "cloth cloths clothing clothid clothesid clothingid clothids clotheslabel clothlabel outfit",
    "split": "set subset partition",
    "mask": "maskpath clothmask clothesmask",
    "face": "facepath facefile",
    "restored": "restoredface restoredpath hrface",
}
_MEANT = {name: column for column, names in _USUAL_NAMES.items() for name in names.split()}
_CLOSE = 0.8  # from which likeness on a name is taken for a misspelt one
_NUMBER = re.compile(r"(0|-?[1-9]\d{0,18})(\.0*)?", re.ASCII)
_LARGEST = (1 << 63) - 1  # of the whole numbers that a column of embeddings holds; larger ones are text
# As NumPy, pandas, R, spreadsheets and databases write no label.
_EMPTY = frozenset({"", "nan", "NaN", "-nan", "<NA>", "NA", "N/A", "n/a", "#N/A", "#NA", "None", "null", "NULL"})
_PARQUET = b"PAR1"
_ROWS = 4096  # of a Parquet file read at a time
_SHOWN = 5  # lines that an error lists


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        path: of the table.
        unit: what `line` counts: "line" of a CSV file, "row" of a Parquet file.
        line: from 1.
        cells: by column; None where a cell is empty.
    """

    path: Path
    unit: str
    line: int
    cells: dict[str, Label]

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}, {self.unit} {self.line}"

    def text(self, column: str) -> str | None:
        """Returns a cell as text, None where it is empty or the table has no such column."""
        value = self.cells.get(column)
        return None if value is None else str(value)


@dataclass(frozen=True)
class PhotoTable:
    """A table of photos, whose rows can be gone through any number of times.

    Attributes:
        path: of the file.
        columns: those of the expected columns that it has.
        notes: what the user should know: columns that are not used.
        rows: starts again at the first row that is not empty.
    """

    path: Path
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]


def open_table(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> PhotoTable:
    """Opens a table and checks its columns.

    Args:
        path: a CSV file (commas, semicolons or tabs; UTF-8) or a Parquet file.
        required: columns that it must have.
        optional: further columns that are read.

    Raises:
        InputError: it cannot be read, has no rows or no header, lacks a column, has one twice, or has one under another
            name, so that its cells would be lost.
    """
    expected = (*required, *optional)
    with path.open("rb") as file:
        is_parquet = file.read(len(_PARQUET)) == _PARQUET or path.suffix.lower() == ".parquet"
    if is_parquet:
        with open_parquet(path) as opened:
            names, rows = list(opened.schema_arrow.names), opened.metadata.num_rows
        where, has_rows = str(path), rows > 0
    else:
        lines = read_csv(path, lambda name: name in expected or _meant(name, expected) is not None)
        header = next(lines, None)
        if header is None:
            raise InputError(
                f"{path} is empty; expected a first line with the names of columns: {', '.join(required)}."
            )
        names, where, has_rows = header.cells, f"{path}, line {header.line}", next(lines, None) is not None
    names = [" ".join(name.split()) for name in names]  # also of the line breaks that spreadsheets put into headers
    unknown = check_columns(where, names, required, expected)
    if not has_rows:
        raise InputError(f"{path} has names of columns and no row below them: it lists no photo.")
    columns = tuple(name for name in expected if name in names)
    shown = ", ".join(name or "(without a name)" for name in unknown)
    notes = (f"{path}: columns {shown} are not used",) if unknown else ()
    read = _parquet_rows if is_parquet else _csv_rows
    return PhotoTable(path, columns, notes, lambda: read(path, columns))


def label(value: Any) -> Label:
    """Returns a label as a whole number or as text, however a table holds it: 7, " 7", 7.0 and "7.0" are one identity.

    Texts that are not written as a plain number ("007", "0001_2") stay text.

    Args:
        value: of a cell; None and NaN are no label.

    Raises:
        ValueError: it is neither a whole number nor text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        text = value.strip()
        match = _NUMBER.fullmatch(text)
        if match and abs(int(match[1])) <= _LARGEST:
            return int(match[1])
        return None if text in _EMPTY else text
    is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and int(value) == value:
        return int(value) if abs(value) <= _LARGEST else str(int(value))
    raise ValueError(f"{value!r}; expected whole numbers or text")


def _simple(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _meant(name: str, columns: Sequence[str]) -> str | None:
    """Returns the column that a name probably means, by another case, a usual name or a misspelling; None for none."""
    simple = _simple(name)
    by_simple_name = {_simple(column): column for column in columns}
    if simple in by_simple_name:
        return by_simple_name[simple]
    if _MEANT.get(simple) in columns:
        return _MEANT[simple]
    close = closest(simple, by_simple_name, _CLOSE)
    return by_simple_name[close[0]] if close else None


def check_columns(where: str, names: Sequence[str], required: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Returns the names of a table that are not used.

    Args:
        where: file and line, for messages.
        names: as the table has them, without blanks around them.
        required: columns that it must have.
        expected: all columns that are read, `required` among them.

    Raises:
        InputError: a column is there twice, is missing, or has another name, so that its cells would be lost.
    """
    if twice := [name for name in expected if names.count(name) > 1]:
        raise InputError(f"{where} has column {twice[0]} twice: remove one.")
    unknown = [name for name in names if name not in expected]
    absent = [name for name in expected if name not in names]
    if meant := {name: column for name in unknown if (column := _meant(name, absent))}:
        questions = ", ".join(f"{name!r} (did you mean {column}?)" for name, column in meant.items())
        raise InputError(
            f"{where} has columns that are not known: {questions}. Rename them, or remove what is something else."
        )
    missing = [name for name in required if name not in names]
    if missing and not set(names) & set(expected):
        shown = ", ".join(repr(name) for name in names[:8]) or "nothing"
        raise InputError(
            f"{where} has {shown}; expected the names of columns, separated by {', '.join(SEPARATORS.values())}:"
            f" {', '.join(required)} (is the first line, with the names, missing?)."
        )
    if missing:
        raise InputError(f"{where} has the columns {', '.join(names)}; {', '.join(missing)} is missing.")
    return unknown


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    lines = read_csv(path, lambda name: name in columns)
    header = next(lines)
    positions = {column: header.cells.index(column) for column in columns}
    for line, cells in lines:
        if len(cells) != len(header.cells):
            raise _ragged(path, header.cells, [line, *(n for n, more in lines if len(more) != len(header.cells))])
        values: dict[str, Label] = {}
        for column, position in positions.items():
            cell = cells[position]
            if "\n" in cell or "\r" in cell:
                raise InputError(
                    f"{path}, line {line}: {column} holds a line break ({cell[:60]!r}): is a quote missing?"
                )
            values[column] = label(cell) if column in LABELS else cell or None
        yield Row(path, "line", line, values)


def _ragged(path: Path, header: Sequence[str], lines: Sequence[int]) -> InputError:
    shown = ", ".join(map(str, lines[:_SHOWN])) + (f" and {len(lines) - _SHOWN} more" * (len(lines) > _SHOWN))
    return InputError(
        f"{path}: line{'s' * (len(lines) > 1)} {shown} ({len(lines)} in all) do not have the {len(header)} cells that"
        " the first line names: add or remove separators, and put quotes around cells that hold one."
    )


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    with open_parquet(path) as file:
        stored = {name.strip(): name for name in file.schema_arrow.names}
        number = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=[stored[column] for column in columns]):
            for row in batch.to_pylist():
                number += 1
                cells = {column: row[stored[column]] for column in columns}
                try:
                    values = {column: _cell(column, value) for column, value in cells.items()}
                except ValueError as error:
                    raise InputError(f"{path}, row {number}: {error}.") from error
                if any(value is not None for value in values.values()):
                    yield Row(path, "row", number, values)


def _cell(column: str, value: Any) -> Label:
    try:
        if column in LABELS:
            return label(value)
        if isinstance(value, str) or value is None:
            return (value or "").strip() or None
        if column != PATH and (number := label(value)) is not None:
            return str(number)
        raise ValueError(f"{value!r}; expected text")
    except ValueError as error:
        raise ValueError(f"column {column} holds {error}") from error
