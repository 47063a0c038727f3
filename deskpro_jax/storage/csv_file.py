"""Reads CSV files as rows of stripped text: finds their separator, and says in one line what makes one unreadable."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from deskpro_jax.errors import InputError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_END = "\0"  # a last line, which shows whether a quote is still open; no line of text holds it
_SAVE = "save it in UTF-8"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # a first line that spreadsheets write
_OTHER_FORMATS = {
    b"\xff\xfe": "is UTF-16 text",
    b"\xfe\xff": "is UTF-16 text",
    b"PK\x03\x04": "is a workbook or zip archive",
    b"\xd0\xcf\x11\xe0": "is a workbook",
    b"\x1f\x8b": "is compressed by gzip",
}


class CsvRow(NamedTuple):
    """A row of a CSV file: the number of its first line, and its cells without the blanks around them."""

    line: int
    cells: list[str]


def read_csv(path: Path, is_column: Callable[[str], bool]) -> Iterator[CsvRow]:
    """Yields the rows of a CSV file, empty ones left out; the first holds the names of the columns.

    Commas, semicolons and tabs are recognised as separators, a byte order mark and all line ends are taken.

    Args:
        path: the file.
        is_column: whether a text is the name of a column; decides which separator the file has.

    Raises:
        InputError: it is not UTF-8 text, or a quote is not closed; the message names the line.
    """
    lines, skipped = itertools.chain(text_lines(path), [_END]), 0
    separator = None
    for first in lines:
        if match := _SEPARATOR_LINE.fullmatch(first):
            separator = match[1]
        elif first.strip() or first == _END:
            break
        skipped += 1
    else:
        return
    reader = csv.reader(
        _with_first(first, lines), delimiter=separator or _separator(first, is_column), skipinitialspace=True
    )
    before = 0
    try:
        for cells in reader:
            line, before = skipped + before + 1, reader.line_num
            if cells == [_END]:
                return
            if cells and _END in cells[-1]:
                raise InputError(f"{path}, line {line}: a quote that opens there is never closed: add or remove one.")
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield CsvRow(line, stripped)
    except csv.Error as error:
        raise InputError(f"{path}, line {skipped + reader.line_num}: {error}: is a quote missing?") from error


def _with_first(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    if first != _END:
        yield from lines


def text_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a text file in UTF-8, with their ends; a byte order mark is left out.

    Args:
        path: the file.

    Raises:
        InputError: it is no UTF-8 text; the message names the line.
    """
    with path.open("rb") as binary:
        start = binary.read(8)
    for signature, what in _OTHER_FORMATS.items():
        if start.startswith(signature):
            raise InputError(f"{path} {what}: {_SAVE}.")
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for number, line in enumerate(file, 1):
            if "\0" in line:
                raise InputError(
                    f"{path}, line {number} has NUL bytes, as UTF-16 text and files that are no text do: {_SAVE}."
                )
            if not line.isascii():
                try:
                    line.encode()
                except UnicodeEncodeError as error:  # bytes that are not UTF-8 were read as surrogates
                    byte = ord(line[error.start]) - 0xDC00
                    where = f"{path}, line {number}"
                    raise InputError(f"{where} is not UTF-8 text (byte 0x{byte:02x}): {_SAVE}.") from error
            yield line


def _separator(first: str, is_column: Callable[[str], bool]) -> str:
    """Returns the separator by which most cells of the first line are names of columns."""

    def names(separator: str) -> int:
        try:
            cells = next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
        except csv.Error:
            return 0
        return sum(is_column(cell.strip()) for cell in cells)

    return max(SEPARATORS, key=names)
