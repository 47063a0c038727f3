"""Prepared folders hold a dataset exactly, and every way they can be wrong is an error that says what to do."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deskpro_jax.cli import draw
from deskpro_jax.data.build import builder, prepared_examples
from deskpro_jax.data.build.prepared_folders import FOLDERS
from deskpro_jax.data.load import dataset
from deskpro_jax.data.schema import SCHEMES, SPLITS, Example
from deskpro_jax.data.synthetic import generate
from deskpro_jax.errors import InputError, MissingInputError


@pytest.fixture(scope="module")
def drawn() -> list[tuple[str, Example]]:
    return list(generate.generate("tiny", 0))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    assert draw.main(["--size", "tiny", "--seed", "0", "--out", str(out)]) == 0
    return out


@pytest.fixture
def folders(written: Path, tmp_path: Path) -> Path:
    """A copy as the authors of a dataset would have made it: the four trees alone."""
    copy = tmp_path / "raw"
    shutil.copytree(written, copy)
    shutil.rmtree(copy / "parts")
    for file in ("manifest.csv", "dataset.json"):
        (copy / file).unlink()
    return copy


def test_reading_what_was_written_gives_the_same_examples(written: Path, drawn: list[tuple[str, Example]]) -> None:
    assert sorted(prepared_examples.read_prepared(written, "celeb")) == sorted(drawn)


def test_building_from_the_folders_gives_the_same_dataset(written: Path, tmp_path: Path) -> None:
    builder.build("synthetic_tiny", tmp_path / "a")
    builder.build("synthetic_tiny", tmp_path / "b", raw_dir=written)
    builder.build("celeb", tmp_path / "b", raw_dir=written)
    drawn = dataset.load("synthetic_tiny", tmp_path / "a", "train")
    for name in ("synthetic_tiny", "celeb"):
        read = dataset.load(name, tmp_path / "b", "train")
        assert [read[i] for i in range(len(read))] == [drawn[i] for i in range(len(drawn))]
        assert read.metadata | {"source": "drawn", "version": drawn.metadata["version"]} == drawn.metadata


def test_the_four_trees_share_file_names_and_the_mask_is_white_off_the_clothes(
    written: Path, drawn: list[tuple[str, Example]]
) -> None:
    for split, example in drawn:
        name = f"{FOLDERS[split]}/{example.image_id}.jpg"
        assert (written / "imgs" / name).read_bytes() == example.body
        for tree, content in (("lr_face", example.face), ("hr_face", example.restored_face)):
            assert (written / tree / name).exists() == (content is not None)
        assert example.parts is not None
        labels = np.asarray(Image.open(io.BytesIO(example.parts)))
        mask = np.asarray(Image.open(written / "mask" / name))
        assert np.array_equal(mask < 128, np.isin(labels, SCHEMES["lip"].clothing))


def test_without_parts_and_manifest_masks_and_names_tell(folders: Path, drawn: list[tuple[str, Example]]) -> None:
    (folders / "imgs" / "query" / ".DS_Store").write_bytes(b"")
    read = {(split, example.image_id): example for split, example in prepared_examples.read_prepared(folders, "prcc")}
    assert len(read) == len(drawn)
    for split, example in drawn:
        found = read[split, example.image_id]
        assert found[:2] == example[:2]
        assert found[3:7] == example[3:7]
        assert found.clothes == -1
        assert example.parts is not None
        assert found.parts is not None
        labels = np.asarray(Image.open(io.BytesIO(example.parts)))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(found.parts))), np.isin(labels, range(5, 13)))


def test_the_scheme_of_bare_folders_is_cloth_mask(folders: Path, tmp_path: Path) -> None:
    builder.build("celeb", tmp_path / "built", raw_dir=folders)
    split = dataset.load("celeb", tmp_path / "built", "query")
    assert split.scheme.name == "cloth_mask"
    assert split.clothing == (1,)


def test_faces_and_masks_may_be_missing(folders: Path) -> None:
    for tree in ("lr_face", "hr_face", "mask"):
        for file in sorted((folders / tree / "query").iterdir())[1:]:
            file.unlink()
    read = [example for split, example in prepared_examples.read_prepared(folders, "celeb") if split == "query"]
    assert sum(example.parts is not None for example in read) == 1
    assert sum(example.face is not None for example in read) == 1
    for file in (folders / "mask" / "query").iterdir():
        file.unlink()
    assert all(e.parts is None for split, e in prepared_examples.read_prepared(folders, "celeb") if split == "query")


def test_celeb_light_names_have_no_c(folders: Path) -> None:
    with pytest.raises(InputError, match=r"0001_c\d_\d+\.jpg: the name does not match PID_CAM_FRAME, as in 7_2_13"):
        list(prepared_examples.read_prepared(folders, "celeb_light"))
    for file in folders.rglob("*.jpg"):
        file.rename(file.with_name(file.name.replace("_c", "_")))
    read = [example for _, example in prepared_examples.read_prepared(folders, "celeb_light")]
    assert {(e.identity, e.camera) for e in read} == {tuple(map(int, e.image_id.split("_")[:2])) for e in read}
    with pytest.raises(InputError, match="does not match PID_cCAM_FRAME"):
        list(prepared_examples.read_prepared(folders, "celeb"))


@pytest.mark.parametrize("missing", ["imgs/query", "lr_face/bounding_box_train", "hr_face", "mask/bounding_box_test"])
def test_a_missing_folder_says_what_to_get_and_where_to_put_it(folders: Path, tmp_path: Path, missing: str) -> None:
    shutil.rmtree(folders / missing)
    with pytest.raises(MissingInputError) as caught:
        builder.build("celeb", tmp_path / "built", raw_dir=folders)
    for part in (str(folders / missing), "https://github.com/Huang-3/Celeb-reID", "data.raw_dir", "hr_face/", "query/"):
        assert part in str(caught.value)


def test_a_dataset_without_raw_dir_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"prcc: data.raw_dir is empty. Get the photos"):
        builder.build("prcc", tmp_path)


def test_an_unreadable_image_is_named(folders: Path, tmp_path: Path) -> None:
    file = sorted((folders / "lr_face" / "bounding_box_test").iterdir())[3]
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=f"{file} is not a readable image"):
        builder.build("celeb", tmp_path / "built", raw_dir=folders)
    assert not builder.is_built("celeb", tmp_path / "built")


def test_trees_with_other_names_are_an_error(folders: Path) -> None:
    for file in (folders / "mask" / "bounding_box_train").iterdir():
        file.rename(file.with_name(f"9{file.name}"))
    with pytest.raises(InputError, match=r"no file in .*mask/bounding_box_train shares its name"):
        list(prepared_examples.read_prepared(folders, "celeb"))


def test_an_empty_split_is_an_error(folders: Path) -> None:
    shutil.rmtree(folders / "imgs" / "query")
    (folders / "imgs" / "query").mkdir()
    with pytest.raises(InputError, match=r"imgs/query holds no images"):
        list(prepared_examples.read_prepared(folders, "celeb"))


def test_files_and_manifest_must_agree(written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "raw"
    shutil.copytree(written, copy)
    file = sorted((copy / "imgs" / "query").iterdir())[0]
    file.unlink()
    with pytest.raises(InputError, match=f"query image {file.stem} is in manifest.csv but has no file"):
        list(prepared_examples.read_prepared(copy, "celeb"))
    manifest = copy / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",train,1,", ",train,one,", 1))
    with pytest.raises(InputError, match=r"manifest.csv, line 2: .*one"):
        list(prepared_examples.read_prepared(copy, "celeb"))


def test_parts_must_have_one_label_a_pixel(written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "raw"
    shutil.copytree(written, copy)
    file = sorted((copy / "parts" / "bounding_box_train").iterdir())[0]
    Image.new("RGB", (4, 8)).save(file)
    with pytest.raises(InputError, match=f"{file} has mode RGB, expected L"):
        list(prepared_examples.read_prepared(copy, "celeb"))


def test_the_command_ends_with_one_line_and_code_2(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw.main(["--size", "tiny", "--out", str(written)]) == 2
    assert capsys.readouterr().err == f"error: {written} already exists: choose another folder, or empty it\n"
    assert draw.main(["--size", "tyni", "--out", str(tmp_path / "x")]) == 2
    assert "tyni" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path, drawn: list[tuple[str, Example]]) -> None:
    bad = ("query", drawn[0][1]._replace(image_id="strange name"))
    with pytest.raises(InputError, match="image strange name: the name does not match"):
        prepared_examples.write_prepared([*drawn[:3], bad], tmp_path / "out", "celeb")
    assert not any(tmp_path.iterdir())
    assert {split for split, _ in drawn} == set(SPLITS)
