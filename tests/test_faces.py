"""A photo's face is found in prepared and in plain folders, and detectors can be plugged in."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import pytest

from deskpro_jax.embedding import faces
from deskpro_jax.embedding.faces import open_faces, open_finder, with_faces
from deskpro_jax.embedding.photo_list import Listed, Listing
from deskpro_jax.errors import InputError, MissingInputError


def touch(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return str(path)


def test_a_prepared_folder_holds_both_kinds_of_faces(tmp_path: Path) -> None:
    face, restored = (touch(tmp_path / field / "a/1.png") for field in ("face", "restored_face"))
    touch(tmp_path / "prepare.json")
    assert open_faces(tmp_path, "face").find("a/1", "x/a/1.jpg") == face
    assert open_faces(tmp_path, "restored_face").find("a/1", "x/a/1.jpg") == restored
    assert open_faces(tmp_path, "face").find("a/2", "x/a/2.jpg") is None


def test_a_plain_folder_holds_files_of_the_same_names(tmp_path: Path) -> None:
    jpg, png = touch(tmp_path / "1.JPG"), touch(tmp_path / "1.png")
    folder = open_faces(tmp_path, "restored_face")
    assert folder.find("1", "photos/1.JPG") == jpg  # the photo's own ending first
    assert folder.find("1", "photos/1.bmp") == png


def test_faces_of_a_table_come_first(tmp_path: Path) -> None:
    found = touch(tmp_path / "2.png")
    listing = Listing(
        "list", lambda: iter([Listed("1", "1.jpg", "mine.jpg"), Listed("2", "2.jpg"), Listed("3", "3.jpg")])
    )
    assert [photo.face for photo in with_faces(listing, open_faces(tmp_path, "face"))] == ["mine.jpg", found, None]


def test_faces_are_matched_in_either_unicode_form_and_the_others_are_named(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "a/Ren\u00e9e") for form in ("NFC", "NFD"))
    for file, photo in ((one, other), (other, one)):
        folder = tmp_path / ("nfc" if file == one else "nfd")
        face, strange = touch(folder / f"{file}.png"), touch(folder / "strange.png")
        faces_of = open_faces(folder, "face")
        assert faces_of.find(photo, f"photos/{photo}.jpg") == face
        assert faces_of.unmatched([Listed(photo, f"photos/{photo}.jpg")]) == [Path(strange).name]


def test_folders_without_faces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="correct --faces"):
        open_faces(tmp_path / "absent", "face")
    touch(tmp_path / "prepare.json")
    with pytest.raises(MissingInputError, match="no restored_face/"):
        open_faces(tmp_path, "restored_face")


def test_a_detector_is_opened_by_its_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = touch(tmp_path / "detector.pth")
    (tmp_path / "some_finder.py").write_text(
        "def open_finder(path):\n    return lambda photos: [str(path)] * len(photos)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(faces, "FINDER", "some_finder:open_finder")
    assert list(open_finder(weights)([None, None])) == [weights, weights]
    sys.modules.pop("some_finder")
    for name in ("some_finder:absent", "no_such_module:open_finder"):
        monkeypatch.setattr(faces, "FINDER", name)
        with pytest.raises(InputError, match=rf"{name}, which is not installed .*--faces"):
            open_finder(weights)
    with pytest.raises(MissingInputError, match="correct --detector"):
        open_finder(tmp_path / "absent.pth")
