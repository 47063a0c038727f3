"""A CSV describes a dataset of one's own; what is wrong with it is said line by line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from author_trees import FOLDER, encode, face, labels, mask, write, write_manifest, write_parts
from deskpro_jax.data.build.assemble import assemble
from deskpro_jax.data.build.image_sources import ImageSource
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.errors import InputError, MissingInputError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write("folder", tmp_path / "raw")
    return tmp_path / "raw"


def labels_of(sources: list[ImageSource], raw: Path) -> dict[str, tuple[object, ...]]:
    return {
        Path(s.body).relative_to(raw).as_posix(): (s.split, s.image_id, s.identity, s.camera, s.clothes)
        for s in sources
    }


def test_lines_give_split_and_labels(raw: Path) -> None:
    for given in (raw, raw / "manifest.csv"):
        listing = list_dataset("folder", given)
        assert labels_of(listing.sources, raw) == FOLDER
        assert listing.notes == []
    (raw / "manifest.csv").rename(raw / "mine.csv")
    assert labels_of(list_dataset("folder", raw).sources, raw) == FOLDER


def test_spreadsheets_write_it_too(raw: Path) -> None:
    """A byte order mark, quotes, CRLF, blank lines, spaces, and a column of one's own."""
    text = (raw / "manifest.csv").read_text().splitlines()
    cells = [line.split(",", 1) for line in text[1:]]
    lines = [f"{text[0]},seen", *(f'"{path}" ,{rest},x' for path, rest in cells), ",,,,,"]
    (raw / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    listing = list_dataset("folder", raw)
    assert labels_of(listing.sources, raw) == FOLDER
    assert listing.notes == [f"{raw}/manifest.csv: columns seen are not used"]


def test_masks_and_faces_are_optional_columns(raw: Path) -> None:
    photo = FOLDER["anna/door.jpg"]
    for name, image in (("m.png", mask()), ("f.jpg", face(photo)), ("r.jpg", face(photo, restored=True))):
        (raw / name).write_bytes(encode(image, Path(name).suffix))
    columns = {"mask": {"anna/door.jpg": "m.png"}, "face": {"anna/door.jpg": "f.jpg"}}
    write_manifest(raw / "manifest.csv", FOLDER, **columns, restored={"anna/door.jpg": "r.jpg"})
    listing = list_dataset("folder", raw)
    assert listing.origin["label_scheme"] == "cloth_mask"
    found = {source.image_id: assemble(source, listing.parts_format).example for source in listing.sources}
    first, second = found["anna/door"], found["anna/yard"]
    assert first is not None
    assert second is not None
    assert first.face == (raw / "f.jpg").read_bytes()
    assert first.restored_face == (raw / "r.jpg").read_bytes()
    assert first.parts is not None
    with Image.open(io.BytesIO(first.parts)) as parts:
        assert np.array_equal(np.asarray(parts), np.isin(np.asarray(labels()), (5, 9)))
    assert second[2:5] == (None, None, None)


def test_what_was_prepared_fills_in_where_the_csv_has_none(raw: Path, tmp_path: Path) -> None:
    photo = FOLDER["anna/door.jpg"]
    (raw / "f.jpg").write_bytes(encode(face(photo), ".jpg"))
    write_manifest(raw / "manifest.csv", FOLDER, face={"anna/door.jpg": "f.jpg"})
    write_parts(FOLDER, tmp_path / "parts")
    sources = {source.image_id: source for source in list_dataset("folder", raw, tmp_path / "parts").sources}
    assert sources["anna/door"].face == str(raw / "f.jpg")
    assert sources["anna/door"].restored_face is None  # it was made from another face
    assert sources["anna/door"].parts == str(tmp_path / "parts/parts/anna/door.png")
    assert sources["anna/yard"].face == str(tmp_path / "parts/face/anna/yard.png")

    write_manifest(raw / "manifest.csv", FOLDER, mask={"anna/door.jpg": "f.jpg"})
    with pytest.raises(InputError, match=r"has masks and .* has label maps: a dataset has one kind"):
        list_dataset("folder", raw, tmp_path / "parts")


def test_unknown_camera_and_clothes_and_distractors_are_minus_one(raw: Path) -> None:
    with (raw / "manifest.csv").open("a") as lines:
        lines.write("anna/door.jpg,gallery,-1,,\n")
    source = list_dataset("folder", raw).sources[-1]
    assert (source.split, source.identity, source.camera, source.clothes) == ("gallery", -1, -1, -1)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("anna/door.jpg,trian,1,1,1", r"line 8: split is 'trian', expected one of .*; did you mean train\?"),
        ("anna/none.jpg,train,1,1,1", r"line 8: path 'anna/none.jpg': no such file"),
        ("anna,train,1,1,1", r"line 8: path 'anna': no such file"),
        (",train,1,1,1", r"line 8: path is empty"),
        ("anna/door.jpg,train,1,1,1", r"line 8: path 'anna/door.jpg' is in line 2 of the same split"),
        ("anna/door.png,train,1,1,1", r"line 8: path 'anna/door.png' is in line 2 .*but for the suffix"),
        ("ben/door.png,query,x1,1,1", r"line 8: identity is 'x1', expected an integer"),
        ("ben/door.png,query,,1,1", r"line 8: identity is '', expected an integer"),
        ("ben/door.png,query,-1,1,1", r"line 8: identity is -1, expected 0 to"),
        ("ben/door.png,query,1,1.5,1", r"line 8: camera is '1.5', expected an integer"),
        ("ben/door.png,query,1,1,99999999999", r"line 8: clothes is 99999999999, expected -1 to"),
        ("ben/door.png,query,1,1", r"line 8 .*do not have the 5 cells"),
    ],
)
def test_a_wrong_line_is_named(line: str, error: str, raw: Path) -> None:
    (raw / "anna/door.png").write_bytes((raw / "ben/door.png").read_bytes())
    with (raw / "manifest.csv").open("a") as lines:
        lines.write(f"{line}\n")
    with pytest.raises(InputError, match=error):
        list_dataset("folder", raw)


def test_all_wrong_lines_are_listed_at_once(raw: Path) -> None:
    text = (raw / "manifest.csv").read_text().replace("train,10", "train,ten").replace("query", "probe")
    (raw / "manifest.csv").write_text(text)
    with pytest.raises(InputError, match=r"has 3 errors:\n  line 2: .*\n  line 3: .*\n  line 5: "):
        list_dataset("folder", raw)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("path split identity camera clothes", "separated by commas, semicolons, tabs: path, split"),
        ("path,split,identity,camera", "clothes is missing"),
        ("path,split,identity,camera,clothes,masks", r"'masks' \(did you mean mask\?\)"),
        ("path,split,identity,camera,clothes,path", "has column path twice"),
        ("", "is empty; expected a first line with the names of columns: path, split"),
    ],
)
def test_a_wrong_header_is_named(header: str, error: str, raw: Path) -> None:
    (raw / "manifest.csv").write_text(f"{header}\n")
    with pytest.raises(InputError, match=error):
        list_dataset("folder", raw)


def test_every_split_needs_an_image(raw: Path) -> None:
    kept = [line for line in (raw / "manifest.csv").read_text().splitlines() if "query" not in line]
    (raw / "manifest.csv").write_text("\n".join(kept))
    with pytest.raises(InputError, match="has no line of split query"):
        list_dataset("folder", raw)


def test_what_is_no_text_is_an_error(raw: Path) -> None:
    (raw / "manifest.csv").write_bytes(b"path\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        list_dataset("folder", raw)


def test_a_missing_csv_says_which_columns_it_has(raw: Path) -> None:
    (raw / "manifest.csv").unlink()
    with pytest.raises(MissingInputError, match=r"has no CSV file, expected manifest.csv with the columns path, split"):
        list_dataset("folder", raw)
    for name in ("a.csv", "b.csv"):
        (raw / name).write_text("")
    with pytest.raises(MissingInputError, match=r"has 2 CSV files \(a.csv, b.csv\)"):
        list_dataset("folder", raw)
