"""Every name in every authors' layout means what its authors say, and every other name is reported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from author_trees import PRCC, PRCC_VAL, TREES, Photo, write
from deskpro_jax.data.build.authors_folders import list_photos
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.datasets.find import SPECS, find_dataset
from deskpro_jax.errors import InputError, MissingInputError


def listed(name: str, raw: Path, with_val: bool = False) -> dict[str, Photo]:
    """Returns what was listed by path, as the tables of author_trees have it."""
    photos, findings = list_photos(find_dataset(name), raw, with_val)
    assert findings == []
    return {photo.file.relative_to(raw).as_posix(): Photo(*photo[:5]) for photo in photos}


@pytest.mark.parametrize("name", [spec.name for spec in SPECS if spec.folders])
def test_names_give_split_identity_camera_and_clothes(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    (tmp_path / "README.txt").write_text("the authors' own")  # beside the folders it is nobody's image
    photos, findings = list_photos(find_dataset(name), tmp_path)
    assert findings == []
    found = {photo.file.relative_to(tmp_path).as_posix(): Photo(*photo[:5]) for photo in photos}
    assert found == TREES[name]
    assert [photo.path for photo in photos] == [path.rsplit(".", 1)[0] for path in found]


def test_image_numbers_1_and_10_of_a_person_are_two_cameras(tmp_path: Path) -> None:
    write("celeb", tmp_path)
    found = listed("celeb", tmp_path)
    assert found["query/1_1_0.jpg"].camera == 1
    assert found["gallery/1_10_0.jpg"].camera == 10
    assert found["gallery/1_11_0.jpg"].camera == 11


def test_prcc_may_be_given_with_or_without_rgb_and_with_val(tmp_path: Path) -> None:
    write("prcc", tmp_path, val=True)
    (tmp_path / "sketch").mkdir()
    assert listed("prcc", tmp_path) == PRCC
    assert listed("prcc", tmp_path, with_val=True) == PRCC | PRCC_VAL
    below = {path.removeprefix("rgb/"): photo for path, photo in PRCC.items()}
    assert listed("prcc", tmp_path / "rgb") == below
    assert list_dataset("prcc", tmp_path).notes == [f"{tmp_path / 'rgb/val'}: 2 images left out (--with-val adds them)"]
    assert list_dataset("prcc", tmp_path, with_val=True).notes == []


def test_only_prcc_has_validation_images(tmp_path: Path) -> None:
    write("ltcc", tmp_path)
    with pytest.raises(InputError, match="ltcc has no validation images"):
        list_photos(find_dataset("ltcc"), tmp_path, with_val=True)


def test_what_file_managers_leave_is_passed_over(tmp_path: Path) -> None:
    write("celeb", tmp_path)
    for name in (".DS_Store", "Thumbs.db", "._1_1_0.jpg", "desktop.ini"):
        (tmp_path / "train" / name).write_bytes(b"")
    assert listed("celeb", tmp_path) == TREES["celeb"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("celeb", "train/0001_c1_000001.jpg"),
        ("celeb", "train/1_2_0 (1).jpg"),
        ("celeb", "train/notes.txt"),
        ("celeb", "train/1_2_3.txt"),
        ("celeb", "gallery/99999999999_1_0.jpg"),
        ("prcc", "rgb/train/001/D_cropped_rgb001.jpg"),
        ("prcc", "rgb/train/cropped_rgb001.jpg"),
        ("prcc", "rgb/test/D/001/cropped_rgb001.jpg"),
        ("ltcc", "test/001_c1_000001.png"),
        ("vc_clothes", "query/0001_01_01_01.jpg"),
    ],
)
def test_a_name_that_says_nothing_is_reported(name: str, file: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    photos, findings = list_photos(find_dataset(name), tmp_path)
    assert len(photos) == len(TREES[name])
    assert [finding.file for finding in findings] == [str(tmp_path / file)]
    assert "the name does not match, expected" in str(findings[0])


def test_a_folder_and_a_second_suffix_are_reported(tmp_path: Path) -> None:
    write("celeb", tmp_path)
    (tmp_path / "train" / "5_5_5.jpg").mkdir()
    shutil.copyfile(tmp_path / "train" / "1_1_0.jpg", tmp_path / "train" / "1_1_0.png")
    findings = [str(finding) for finding in list_photos(find_dataset("celeb"), tmp_path)[1]]
    assert len(findings) == 2
    assert f"{tmp_path}/train/1_1_0.png: the same image as {tmp_path}/train/1_1_0.jpg" in findings[0]
    assert "5_5_5.jpg: this is a folder" in findings[1]


@pytest.mark.parametrize(("name", "folder"), [("celeb", "query"), ("ltcc", "test"), ("prcc", "rgb/test")])
def test_a_missing_folder_says_what_to_get_and_where_it_goes(name: str, folder: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    shutil.rmtree(tmp_path / folder)
    with pytest.raises(MissingInputError) as caught:
        list_dataset(name, tmp_path)
    for part in (str(tmp_path / folder), find_dataset(name).origin, "--raw", "data.raw_dir", "train/", f"{folder}/"):
        assert part in str(caught.value)


def test_the_folder_above_is_recognised(tmp_path: Path) -> None:
    write("vc_clothes", tmp_path / "VC-Clothes")
    with pytest.raises(MissingInputError, match=f"Did you mean {tmp_path}/VC-Clothes\\?"):
        list_dataset("vc_clothes", tmp_path)


def test_a_split_without_images_is_an_error(tmp_path: Path) -> None:
    write("celeb", tmp_path)
    for file in (tmp_path / "query").iterdir():
        file.rename(file.with_name(f"q{file.name}"))
    with pytest.raises(InputError, match=r"query holds no images of split query.*2 files have other names"):
        list_dataset("celeb", tmp_path)


def test_ltcc_given_as_vc_clothes_is_an_error(tmp_path: Path) -> None:
    write("ltcc", tmp_path)
    with pytest.raises(MissingInputError, match="gallery is missing"):
        list_dataset("vc_clothes", tmp_path)
