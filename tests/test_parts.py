"""Masks and faces find their photos, by path or by the numbers in their names; those that find none are told."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from author_trees import PRCC, TREES, draw, encode, face, labels, mask, write, write_parts
from deskpro_jax.data.build.assemble import assemble
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.build.prepared_folders import FOLDERS
from deskpro_jax.data.schema import Example
from deskpro_jax.errors import InputError, MissingInputError


def prepared_name(photo_path: str, name: str, first_camera: int = 1) -> str:
    """Returns what the authors of DeSKPro may have named the file of a photo."""
    photo = TREES[name][photo_path]
    frame = "".join(filter(str.isdigit, Path(photo_path).stem.rsplit("_", 1)[-1]))
    if name == "celeb_light":
        return f"{photo.identity}_{photo.camera}_{frame}.jpg"
    camera = photo.camera + (first_camera if name == "prcc" else 0)
    return f"{photo.identity:04d}_c{camera}_{int(frame):06d}.jpg"


def write_prepared_parts(name: str, out: Path, first_camera: int = 1) -> None:
    """Writes mask/, lr_face/ and hr_face/ for a tree."""
    for path, photo in TREES[name].items():
        for tree, image in (("mask", mask()), ("lr_face", face(photo)), ("hr_face", face(photo, restored=True))):
            file = out / tree / FOLDERS[photo.split] / prepared_name(path, name, first_camera)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(image, ".jpg"))


def examples(name: str, raw: Path, parts: Path | None) -> dict[str, Example]:
    """Returns the examples of a dataset by the paths of their photos."""
    listing = list_dataset(name, raw, parts)
    assert listing.findings == []
    result = {}
    for source in listing.sources:
        assembled = assemble(source, listing.parts_format)
        assert assembled.findings == ()
        assert assembled.example is not None
        result[Path(source.body).relative_to(raw).as_posix()] = assembled.example
    return result


def pixels(content: bytes | None) -> np.ndarray:
    assert content is not None
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", ["celeb", "prcc", "ltcc", "folder"])
def test_what_the_preparation_wrote_is_joined_by_path(name: str, tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    tree = write(name, raw)
    first, second, *others = tree
    write_parts(tree, parts, without=[first], faceless=[second])
    found = examples(name, raw, parts)
    assert found[first][2:5] == (None, None, None)
    assert found[second].parts is not None
    assert found[second][3:5] == (None, None)
    for path in others:
        stem = path.rsplit(".", 1)[0]
        assert found[path].body == (raw / path).read_bytes()
        assert found[path].parts == (parts / "parts" / f"{stem}.png").read_bytes()
        assert found[path].face == (parts / "face" / f"{stem}.png").read_bytes()
        assert found[path].restored_face == (parts / "restored_face" / f"{stem}.png").read_bytes()
    listing = list_dataset(name, raw, parts)
    assert listing.origin["label_scheme"] == "lip"
    assert listing.origin["masks"] == "drawn by hand"
    assert listing.origin["faces"] == "cut by hand"


@pytest.mark.parametrize(("name", "first_camera"), [("celeb", 0), ("celeb_light", 0), ("prcc", 1), ("prcc", 0)])
def test_prepared_folders_are_joined_by_the_numbers(name: str, first_camera: int, tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    tree = write(name, raw)
    write_prepared_parts(name, parts, first_camera)
    (parts / "parts").mkdir()  # as in folders written from a synthetic dataset
    for path, example in examples(name, raw, parts).items():
        file = Path(FOLDERS[tree[path].split]) / prepared_name(path, name, first_camera)
        assert example.face == (parts / "lr_face" / file).read_bytes()
        assert example.restored_face == (parts / "hr_face" / file).read_bytes()
        assert np.array_equal(pixels(example.parts), np.isin(np.asarray(labels()), (5, 9)))
    assert list_dataset(name, raw, parts).origin["label_scheme"] == "cloth_mask"


def test_without_parts_there_are_no_masks_and_faces(tmp_path: Path) -> None:
    write("vc_clothes", tmp_path)
    assert all(example[2:5] == (None, None, None) for example in examples("vc_clothes", tmp_path, None).values())
    assert list_dataset("vc_clothes", tmp_path).origin["masks"] == "none"


@pytest.mark.parametrize("writes", [lambda out: write_parts(PRCC, out), lambda out: write_prepared_parts("prcc", out)])
def test_files_of_no_photo_are_told(writes: Callable[[Path], None], tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    write("prcc", raw)
    writes(parts)
    (raw / "rgb/train/004/C_cropped_rgb002.jpg").unlink()
    notes = list_dataset("prcc", raw, parts).notes
    assert len(notes) == 3
    assert all("1 files of kind" in note and "belong to no photo" in note for note in notes)


def test_parts_of_another_dataset_are_an_error(tmp_path: Path) -> None:
    write("celeb", tmp_path / "raw")
    write_parts(TREES["ltcc"], tmp_path / "parts")
    with pytest.raises(InputError, match=r"none of the 13 files of kind parts .* belongs to a photo.*train/1_10_0"):
        list_dataset("celeb", tmp_path / "raw", tmp_path / "parts")


def test_two_photos_with_the_numbers_of_one_mask_are_an_error(tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    write("celeb", raw)
    shutil.copyfile(raw / "train/1_1_0.jpg", raw / "train/01_1_0.jpg")
    write_prepared_parts("celeb", parts)
    with pytest.raises(InputError, match=r"train/1_1_0.jpg and .*train/01_1_0.jpg have the same numbers \(1, 1, 0\)"):
        list_dataset("celeb", raw, parts)


def test_a_mask_that_is_there_twice_and_a_strange_name_are_reported(tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    write("celeb", raw)
    write_prepared_parts("celeb", parts)
    folder = parts / "mask" / "query"
    shutil.copyfile(folder / "0001_c1_000000.jpg", folder / "1_1_0.png")
    (folder / "readme.txt").write_text("")
    reasons = [str(finding) for finding in list_dataset("celeb", raw, parts).findings]
    assert any("1_1_0.png: the same numbers as 0001_c1_000000.jpg" in reason for reason in reasons)
    assert any("readme.txt: not an image named" in reason for reason in reasons)


def test_settings_must_be_there_and_known(tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    tree = write("celeb", raw)
    with pytest.raises(MissingInputError, match=r"parts is not a folder: set data.parts_dir \(--parts\)"):
        list_dataset("celeb", raw, parts)
    (parts / "other").mkdir(parents=True)
    with pytest.raises(MissingInputError, match=r"holds other: set data\.parts_dir"):
        list_dataset("celeb", raw, parts)
    write_parts(tree, parts)
    (parts / "images.parquet").unlink()
    assert "the data preparation has not finished" in list_dataset("celeb", raw, parts).notes[0]
    (parts / "prepare.json").write_text(json.dumps({"label_scheme": None}))
    with pytest.raises(InputError, match="has no label_scheme, but there are label maps"):
        list_dataset("celeb", raw, parts)
    shutil.rmtree(parts / "parts")
    assert list_dataset("celeb", raw, parts).origin["label_scheme"] == "cloth_mask"
    (parts / "prepare.json").write_text(json.dumps({"label_scheme": "lop"}))
    with pytest.raises(InputError, match=r"label_scheme is 'lop', expected one of lip"):
        list_dataset("celeb", raw, parts)
    (parts / "prepare.json").write_text("{")
    with pytest.raises(InputError, match="expected a JSON object"):
        list_dataset("celeb", raw, parts)
    (parts / "prepare.json").unlink()
    with pytest.raises(MissingInputError, match="let the data preparation command finish"):
        list_dataset("celeb", raw, parts)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (labels().convert("RGB"), "has mode RGB, expected L"),
        (labels().resize((16, 64)), "has 16 x 64 pixels, its photo 32 x 64"),
        (Image.new("L", (32, 64), 20), r"has label 20, expected 0 to 19 \(scheme lip\)"),
    ],
)
def test_label_maps_must_fit_their_photo(image: Image.Image, reason: str, tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    write_parts(write("celeb", raw), parts)
    image.save(parts / "parts/train/1_1_0.png")
    listing = list_dataset("celeb", raw, parts)
    assembled = assemble(next(s for s in listing.sources if s.image_id == "1_1_0"), listing.parts_format)
    assert [finding.file for finding in assembled.findings] == [str(parts / "parts/train/1_1_0.png")]
    assert re.search(reason, str(assembled.findings[0]))
    assert assembled.example is not None
    assert assembled.example.parts is None
    assert assembled.example.face is not None


@pytest.mark.parametrize("upright_parts", [True, False])
def test_a_photo_stored_turned_is_built_upright_with_its_parts(upright_parts: bool, tmp_path: Path) -> None:
    raw, parts = tmp_path / "raw", tmp_path / "parts"
    tree = write("celeb", raw)
    write_parts(tree, parts)
    photo = draw(tree["train/2_1_0.jpg"])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter clockwise to see it upright
    photo.transpose(Image.Transpose.ROTATE_90).save(raw / "train/2_1_0.jpg", quality=95, exif=exif.tobytes())
    if not upright_parts:
        labels().transpose(Image.Transpose.ROTATE_90).save(parts / "parts/train/2_1_0.png")
    example = examples("celeb", raw, parts)["train/2_1_0.jpg"]
    assert np.array_equal(pixels(example.parts), np.asarray(labels()))
    assert np.abs(pixels(example.body).astype(int) - np.asarray(photo)).mean() < 5  # JPEG was turned
