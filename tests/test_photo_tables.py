"""Every command reads tables by one reader: no label is lost in silence, and what cannot be read is said in a line."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from author_trees import FOLDER, write
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.photo_tables import label, open_table
from deskpro_jax.embedding.photo_list import list_photos
from deskpro_jax.errors import InputError

COLUMNS = ("path", "split", "identity", "camera", "clothes")
ROWS = [
    (path, split, *map(str, (identity, camera, clothes)))
    for path, (split, _, identity, camera, clothes) in FOLDER.items()
]
Reader = Callable[[Path], list[tuple[object, ...]]]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "raw"
    write("folder", folder)
    (folder / "manifest.csv").unlink()
    return folder


def by_embed(table: Path) -> list[tuple[object, ...]]:
    return [(photo.image_id, photo.identity, photo.camera, photo.clothes) for photo in list_photos(table)]


def by_build(table: Path) -> list[tuple[object, ...]]:
    return [(s.image_id, s.identity, s.camera, s.clothes) for s in list_dataset("folder", table).sources]


READERS = {"embed": by_embed, "build": by_build}
EXPECTED = sorted(tuple(photo[1:]) for photo in FOLDER.values())


def text(rows: list[tuple[str, ...]] = ROWS, header: tuple[str, ...] = COLUMNS, separator: str = ",") -> str:
    return "".join(separator.join(row) + "\n" for row in (header, *rows))


def padded(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [tuple(f" {cell}\t " for cell in row) for row in rows]


SPELLINGS = {
    "plain": text().encode(),
    "blanks after commas": text(separator=", ").encode(),
    "blanks around cells": text(padded(ROWS), padded([COLUMNS])[0]).encode(),
    "byte order mark": text().encode("utf-8-sig"),
    "CRLF": text().replace("\n", "\r\n").encode(),
    "CR": text().replace("\n", "\r").encode(),
    "semicolons": text(separator=";").encode(),
    "semicolons and blanks": text(separator="; ").encode(),
    "tabs": text(separator="\t").encode(),
    "sep= line": b"sep=;\r\n" + text(separator=";").encode(),
    "quotes": text([tuple(f'"{cell}"' for cell in row) for row in ROWS]).encode(),
    "empty rows": (",,,,\n\n" + text() + "\n , ,,,\n\n").encode().replace(b",,,,\n\n", b"\n", 1),
    "floats": text([(*row[:2], *(f"{cell}.0" for cell in row[2:])) for row in ROWS]).encode(),
    "no last line end": text().rstrip("\n").encode(),
    "other order": text([row[::-1] for row in ROWS], COLUMNS[::-1]).encode(),
    "header of two lines": text([(*row, "x") for row in ROWS], (*COLUMNS, '"seen\nat"')).encode(),
    "own columns": text([(*row, "3, left", "") for row in ROWS], (*COLUMNS, "seen at", ""), "\t").encode(),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("content", SPELLINGS.values(), ids=SPELLINGS)
def test_a_table_keeps_its_labels_however_it_is_written(content: bytes, read: Reader, raw: Path) -> None:
    (raw / "t.csv").write_bytes(content)
    assert sorted(read(raw / "t.csv")) == EXPECTED


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", ["integers", "floats", "text", "categories", "blanks in names", "empty rows"])
def test_parquet_is_read_alike(kind: str, read: Reader, raw: Path) -> None:
    columns: dict[str, list[object]] = {name: [row[i] for row in ROWS] for i, name in enumerate(COLUMNS)}
    for name in COLUMNS[2:]:
        convert = {"integers": int, "floats": float}.get(kind, str)
        columns[name] = [convert(value) for value in columns[name]]
    if kind == "empty rows":
        columns = {name: [None, *values, None] for name, values in columns.items()}
    table = pa.table({f" {n} " if kind == "blanks in names" else n: values for n, values in columns.items()})
    if kind == "categories":
        table = pa.table({name: table[name].dictionary_encode() for name in table.column_names})
    pq.write_table(table, raw / "t.parquet")
    assert sorted(read(raw / "t.parquet")) == EXPECTED


USUAL = {
    "identity": ("Identity", "ident", "IDENTITY", "pid", "PID", "person_id", "person id", "id", "label", "identiy"),
    "camera": ("Camera", "cam", "camid", "CamID", "cam_id", "camera_id", "cameras", "Camera Name"),
    "clothes": ("Clothes", "clothes_id", "cloth", "clothing"),
    "path": (
        "Path",
        "img",
        "img_path",
        "image_path",
        "filepath",
        "File Name",
        "file",
        "paths",
        "Image_Filename",
        "rel_path",
    ),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("column", "name"), [(column, name) for column, names in USUAL.items() for name in names])
def test_a_column_under_another_name_is_asked_about(column: str, name: str, read: Reader, raw: Path) -> None:
    header = tuple(name if known == column else known for known in COLUMNS)
    (raw / "t.csv").write_text(text(header=header))
    pq.write_table(pa.table({n: [row[i] for row in ROWS] for i, n in enumerate(header)}), raw / "t.parquet")
    for file in ("t.csv", "t.parquet"):
        with pytest.raises(InputError) as error:
            read(raw / file)
        message = str(error.value)
        assert f"{name!r} (did you mean {column}?)" in message
        assert str(raw / file) in message
        assert "\n" not in message


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_table_may_be_called_a_text_file(read: Reader, separator: str, raw: Path) -> None:
    (raw / "t.txt").write_text(text([(f'"{row[0]}"', *row[1:]) for row in ROWS], separator=separator))
    assert sorted(read(raw / "t.txt")) == EXPECTED


def test_columns_that_are_not_used_are_listed_once(raw: Path) -> None:
    rows = [(*row, "1", "2", "3", "4") for row in ROWS]
    (raw / "t.csv").write_text(text(rows, (*COLUMNS, "seen", "weather", "pid", "")))
    assert list_dataset("folder", raw / "t.csv").notes == [
        f"{raw}/t.csv: columns seen, weather, pid, (without a name) are not used"
    ]
    assert list_photos(raw / "t.csv").notes == (
        f"{raw}/t.csv: columns split, seen, weather, pid, (without a name) are not used",
    )


@pytest.mark.parametrize("value", [7, 7.0, "7", " 7", "7 ", "7.0", "7.", "\t7", "7.00", Decimal(7)])
def test_one_identity_is_one_number(value: object) -> None:
    assert label(value) == 7
    assert isinstance(label(value), int)


@pytest.mark.parametrize("value", ["0001_2", "1_2", "007", "x1", "7.5", "1e3", "+7", "7a", "٧", "0x7", "- 7"])
def test_what_is_no_plain_number_is_text(value: str, raw: Path) -> None:
    assert label(f" {value} ") == value
    rows = [(*ROWS[0][:2], value, *ROWS[0][3:]), *ROWS[1:]]
    (raw / "t.csv").write_text(text(rows), encoding="utf-8")
    assert by_embed(raw / "t.csv")[0][1] == value
    if value != "007":
        with pytest.raises(InputError, match=r"line 2: identity is .*, expected an integer"):
            by_build(raw / "t.csv")


def test_zeros_in_front_of_the_number_of_a_person_are_left_out_of_a_dataset(raw: Path) -> None:
    (raw / "t.csv").write_text(text([(*row[:2], row[2].zfill(6), *row[3:]) for row in ROWS]))
    assert sorted(by_build(raw / "t.csv")) == EXPECTED


@pytest.mark.parametrize(
    "value", [None, math.nan, "", "  ", "nan", "NaN", "<NA>", "NA", " N/A ", "n/a", "#N/A", "None", "null"]
)
def test_no_label_is_no_label(value: object) -> None:
    assert label(value) is None


@pytest.mark.parametrize("value", [True, 7.5, math.inf, b"7", [7]])
def test_what_can_be_no_label_is_refused(value: object, raw: Path) -> None:
    with pytest.raises(ValueError, match="expected whole numbers or text"):
        label(value)
    pq.write_table(pa.table({"path": ["a.jpg"], "identity": [value]}), raw / "t.parquet")
    with pytest.raises(InputError, match=r"row 1: column identity holds .*; expected whole numbers or text"):
        list(list_photos(raw / "t.parquet"))


HEADER = ",".join(COLUMNS) + "\n"
BROKEN = {
    "empty": (b"", "is empty"),
    "only blank lines": (b"\n\r\n  \n", "is empty"),
    "header only": (HEADER.encode(), "no row below"),
    "header and empty rows": (HEADER.encode() + b",,,,\n\n", "no row below"),
    "no header": (text()[len(HEADER) :].encode(), "is the first line, with the names, missing"),
    "open quote in the header": (text().replace("clothes", '"clothes', 1).encode(), "line 1: a quote that opens there"),
    "quote over the header's end": (text().replace("clothes", '"clothes').replace("jpg", 'jpg"', 1).encode(), "t.csv"),
    "column twice": (text(header=("path", "path", *COLUMNS[2:])).encode(), "line 1 has column path twice"),
    "column twice after blanks": (text(header=("path", "path ", *COLUMNS[2:])).encode(), "has column path twice"),
    "short rows": ((text() + "a.jpg,query\nb.jpg\n").encode(), "lines 8, 9 (2 in all) do not have the 5 cells"),
    "long row": ((text() + "a,b.jpg,query,1,1,1\n").encode(), "line 8 (1 in all) do not have the 5 cells"),
    "ragged after cells of two lines": (
        (text([(*row, '"a\nb"') for row in ROWS], (*COLUMNS, "remark")) + "a.jpg\n").encode(),
        "line 14 (1 in all)",
    ),
    "UTF-16": (text().encode("utf-16"), "is UTF-16 text"),
    "UTF-16 without a mark": (text().encode("utf-16-le"), "line 1 has NUL bytes"),
    "latin-1": ((text() + "Jos\xe9.jpg,query,1,1,1\n").encode("latin-1"), "line 8 is not UTF-8 text (byte 0xe9)"),
    "NUL bytes": ((text() + "a\0b.jpg,query,1,1,1\n").encode(), "line 8 has NUL bytes"),
    "line break in a path": ((text() + '"a\nb.jpg",query,1,1,1\n').encode(), "line 8: path holds a line break"),
    "open quote": ((text() + '"a.jpg,query,1,1,1\nb.jpg,query,1,1,1\n').encode(), "line 8: a quote that opens there"),
    "open quote in the last column": (
        text([(*row, '"x' if i == 2 else "x") for i, row in enumerate(ROWS)], (*COLUMNS, "remark")).encode(),
        "line 4: a quote that opens there",
    ),
    "a workbook": (b"PK\x03\x04" + bytes(40), "is a workbook or zip archive"),
    "a photo": (b"\x89PNG\r\n\x1a\n" + bytes(40), "is not UTF-8 text"),
    "a cell beyond all sizes": ((text() + "a" * 200_000 + ",query,1,1,1\n").encode(), "line 8: field larger than"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("content", "words"), BROKEN.values(), ids=BROKEN)
def test_a_table_that_cannot_be_read_is_refused_in_a_line(content: bytes, words: str, read: Reader, raw: Path) -> None:
    (raw / "t.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        read(raw / "t.csv")
    message = str(error.value)
    assert words in message
    assert str(raw / "t.csv") in message
    assert "\n" not in message


def test_a_separator_may_stand_in_a_quoted_cell(raw: Path) -> None:
    (raw / "t.csv").write_text('path;identity;remark\n"a;b,c.jpg";7;"two\nlines"\n')
    rows = list(open_table(raw / "t.csv", ("path",), ("identity",)).rows())
    assert [(row.line, row.cells) for row in rows] == [(2, {"path": "a;b,c.jpg", "identity": 7})]
    assert rows[0].where == f"{raw}/t.csv, line 2"


def test_a_parquet_file_that_is_no_table_of_photos_is_refused(raw: Path) -> None:
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), raw / "t.parquet")
    with pytest.raises(InputError, match="no row below"):
        list_photos(raw / "t.parquet")
    pq.write_table(pa.table({"path": ["a.jpg", None], "identity": [1, 2]}), raw / "t.parquet")
    with pytest.raises(InputError, match=r"row 2: the path is empty"):
        list(list_photos(raw / "t.parquet"))
    pq.write_table(pa.table({"path": [5]}), raw / "t.parquet")
    with pytest.raises(InputError, match=r"row 1: column path holds 5; expected text"):
        list(list_photos(raw / "t.parquet"))
    pq.write_table(pa.table([["a.jpg"], ["b.jpg"]], ["path", "path"]), raw / "t.parquet")
    with pytest.raises(InputError, match=r"has column path twice"):
        list_photos(raw / "t.parquet")
