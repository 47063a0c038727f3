"""Every kind of list gives the same photos under the same names, and says what is wrong with it."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.photos import describe_others, find_photos
from deskpro_jax.data.photo_names import SUFFIXES, passed_over
from deskpro_jax.embedding.photo_list import Listed, list_photos
from deskpro_jax.errors import InputError, MissingInputError

FILES = ("b/2.PNG", "b/1.jpg", "a.jpeg", "c.d.bmp", "b/notes.txt", ".hidden.jpg", ".git/x.jpg")
NAMES = ["a", "b/1", "b/2", "c.d"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "photos"


def ids(source: str | Path, root: Path | None = None) -> list[str]:
    return [photo.image_id for photo in list_photos(source, root)]


def test_a_folder_gives_its_photos_at_any_depth_in_order(folder: Path) -> None:
    found = list(list_photos(folder))
    assert [photo.image_id for photo in found] == NAMES
    assert found[2] == Listed("b/2", str(folder / "b" / "2.PNG"))
    assert ids(folder, folder.parent) == [f"photos/{name}" for name in NAMES]
    assert ids(folder / "b") == ["1", "2"]


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.jpg").write_bytes(b"")
    (folder / "link").symlink_to(tmp_path / "other")
    (folder / "b" / "up").symlink_to(folder)
    assert ids(folder) == [*NAMES, "link/z"]


def test_a_pattern_gives_names_below_its_fixed_part(folder: Path) -> None:
    assert ids(f"{folder}/**/*") == NAMES
    assert ids(f"{folder}/b/*.jpg") == ["1"]
    assert ids(f"{folder}/b/*.jpg", folder) == ["b/1"]
    assert ids(str(folder / "b" / "1.jpg")) == ["1"]


def test_text_lists_take_relative_and_absolute_paths(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = folder / "list.txt"
    beside.write_text("b/1.jpg\n\n./a.jpeg\r\n", encoding="utf-8-sig")
    found = list(list_photos(beside))
    assert [photo.image_id for photo in found] == ["b/1", "a"]
    assert Path(found[0].path).samefile(folder / "b" / "1.jpg")

    away = tmp_path / "lists" / "list.txt"
    away.parent.mkdir()
    away.write_text("photos/b/1.jpg\nphotos/a.jpeg")
    monkeypatch.chdir(tmp_path)
    assert ids(away) == ["photos/b/1", "photos/a"]
    assert ids("lists/list.txt") == ["photos/b/1", "photos/a"]

    away.write_text(f"{folder}/b/1.jpg\n{folder}/a.jpeg\n")
    assert ids(away) == ["b/1", "a"]
    assert ids(away, tmp_path) == ["photos/b/1", "photos/a"]


def test_tables_carry_names_faces_and_labels(folder: Path, tmp_path: Path) -> None:
    (folder / "t.csv").write_text("path,identity,camera,face\nb/1.jpg,7,c2,a.jpeg\na.jpeg,,007,\n")
    assert list(list_photos(folder / "t.csv")) == [
        Listed("b/1", str(folder / "b/1.jpg"), str(folder / "a.jpeg"), 7, "c2", None),
        Listed("a", str(folder / "a.jpeg"), None, None, "007", None),
    ]
    columns = {
        "path": ["b/1.jpg", "a.jpeg"],
        "identity": [7.0, None],
        "clothes": ["red", "blue"],
        "image_id": ["x", "y"],
    }
    pq.write_table(pa.table(columns), folder / "t.parquet")
    assert list(list_photos(folder / "t.parquet")) == [
        Listed("x", str(folder / "b/1.jpg"), None, 7, None, "red"),
        Listed("y", str(folder / "a.jpeg"), None, None, None, "blue"),
    ]


def test_a_list_can_be_gone_through_again(folder: Path) -> None:
    listing = list_photos(folder)
    assert list(listing) == list(listing)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "image,identity\na.jpg,1\n", r"'image' \(did you mean path\?\)"),
        ("t.csv", "photos of,identity\na.jpg,1\n", "has the columns photos of, identity; path is missing"),
        ("t.csv", "path,identity\na.jpg\n", r"line 2 .*do not have the 2 cells"),
        ("t.csv", "path,identity\n,1\n", "line 2: the path is empty"),
        ("t.parquet", "no table", "not a complete Parquet file"),
        ("t.txt", "", "lists no photo"),
        ("t.json", "[]", r"expected a photo .* or a list"),
    ],
)
def test_a_bad_list_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        list(list_photos(tmp_path / name))
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg\nb.jpg\n".encode("utf-16"), "is UTF-16 text"),
        ("a.jpg\nb.jpg\n".encode("utf-16-le"), "line 1 has NUL bytes"),
        ("a.jpg\nJos\xe9.jpg\n".encode("latin-1"), r"line 2 is not UTF-8 text \(byte 0xe9\)"),
    ],
)
def test_a_text_list_that_is_not_utf8_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        list_photos(tmp_path / "t.txt")


def test_what_is_not_there_or_ambiguous_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no photos at .*absent"):
        list_photos(tmp_path / "absent")
    with pytest.raises(MissingInputError, match="correct --root"):
        list_photos(folder, tmp_path / "absent")
    with pytest.raises(InputError, match="holds no photo"):
        list_photos(f"{folder}/*.gif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no photo"):
        list_photos(tmp_path / "empty")
    with pytest.raises(InputError, match=r"is not in .*correct --root"):
        list(list_photos(folder, folder / "b"))
    (folder / "b" / "1.png").write_bytes(b"")
    for source in (folder, f"{folder}/**/*"):
        with pytest.raises(InputError, match=r"b/1\.jpg and .*b/1\.png differ only in their suffix"):
            list(list_photos(source))
    os.rename(folder / "b" / "1.png", os.fsencode(folder / "b") + b"/\xff.png")
    with pytest.raises(InputError, match="not valid UTF-8"):
        list(list_photos(folder))


def test_suffixes_are_those_of_every_other_command(tmp_path: Path) -> None:
    for number, suffix in enumerate(SUFFIXES):
        (tmp_path / f"{number}{suffix}").write_bytes(b"")
        (tmp_path / f"upper{number}{suffix.upper()}").write_bytes(b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == [Path(p.path).name for p in list_photos(tmp_path)]
    assert len(find_photos(tmp_path)) == 2 * len(SUFFIXES)


def test_one_list_of_suffixes_and_the_other_files_are_counted(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.jfif", "c.heic", "d.avif", "e.gif", "f.jpe", "g", "h.txt", ".i.txt", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    listing = list_photos(tmp_path)
    taken = {Path(photo.path).name for photo in listing}
    assert taken >= {"a.JPG", "b.jfif", "e.gif", "f.jpe"}
    assert taken == set(find_photos(tmp_path))
    line = passed_over(listing.others())
    assert line == describe_others(tmp_path)
    assert line.startswith(f"{8 - len(taken)} other files were passed over: ")
    assert "1 .txt" in line
    assert "1 without suffix" in line
    if "c.heic" not in taken:
        assert "1 .heic" in line
        assert "deskpro_jax[heic]" in line
    assert dict(list_photos(f"{tmp_path}/[bgh]*").others()) == {".txt": 1, "without suffix": 1}
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_bytes(b"")
    for find in (list_photos, find_photos):
        with pytest.raises(InputError, match=r"holds no photo.*; 1 other file was passed over: 1 \.txt"):
            find(tmp_path / "none")


def test_a_photo_listed_twice_is_refused(folder: Path) -> None:
    listed = folder / "list.csv"
    for rows, message in (
        ("b/1.jpg\n./b/1.jpg\n", r"are the same file, listed twice"),
        ("b/1.jpg\nb/../b/1.jpg\n", r"are the same file, listed twice"),
        (f"b/1.jpg\n{folder}/b/1.jpg\n", r"are the same file, listed twice"),
        ("b/1.jpg\nb/1.png\n", r"differ only in their suffix"),
    ):
        listed.write_text("path\n" + rows)
        with pytest.raises(InputError, match=message):
            list_photos(listed)
    listed.write_text("path,image_id\nb/1.jpg,x\na.jpeg,x\n")
    with pytest.raises(InputError, match="have the same image_id 'x'"):
        list_photos(listed)
    listed.write_text("path,image_id\nb/1.jpg,x\na.jpeg,y\n")
    assert ids(listed) == ["x", "y"]


def test_names_in_either_unicode_form_are_one_name(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "\u00e9t\u00e9") for form in ("NFC", "NFD"))
    (tmp_path / f"{other}.jpg").write_bytes(b"")
    (tmp_path / "list.csv").write_text(f"path\n{one}.jpg\n", encoding="utf-8")
    (photo,) = list_photos(tmp_path / "list.csv")
    assert Path(photo.path).is_file()
    (tmp_path / f"{one}.png").write_bytes(b"")
    for find in (list_photos, find_photos):
        with pytest.raises(InputError, match="differ only in their suffix"):
            find(tmp_path)
