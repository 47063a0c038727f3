"""Lists of photos are read strictly: every wrong row is named, and lists and files have to agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from author_trees import DEEPCHANGE, TRACKLETS, Photo, write
from data_prep.checking import recognise
from deskpro_jax.data.build import builder
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.build.listed_photos import list_photos
from deskpro_jax.data.build.outfits import number_outfits
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.load import dataset
from deskpro_jax.errors import InputError, MissingInputError


def labels(name: str, raw: Path) -> dict[str, tuple[Photo, int]]:
    """Returns what the lists of a dataset say, by path: labels and tracklet."""
    photos, findings, _ = list_photos(find_dataset(name), raw)
    assert findings == []
    return {photo.file.relative_to(raw).as_posix(): (Photo(*photo[:5]), photo.tracklet) for photo in photos}


EXPECTED = {path: (photo, TRACKLETS["deepchange"][path]) for path, photo in DEEPCHANGE.items()}


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("root", ["raw", "query/train_1/raw"])
def test_deepchange_is_what_its_lists_and_names_say(root: str, tmp_path: Path) -> None:
    raw = tmp_path / root
    write("deepchange", raw)
    assert labels("deepchange", raw) == EXPECTED
    below = {path.removeprefix("DeepChangeDataset/"): photo for path, photo in EXPECTED.items()}
    assert labels("deepchange", raw / "DeepChangeDataset") == below
    assert recognise.recognise(raw).spec.name == "deepchange"


def test_photos_in_no_list_are_left_out_and_counted(tmp_path: Path) -> None:
    write("deepchange", tmp_path)
    folder = tmp_path / "DeepChangeDataset"
    (folder / "train-set" / "P0003_C01_A_0001.jpg").write_bytes(b"x")
    (folder / "val-set-query").mkdir()
    (folder / "val-set-query" / "P0004_C01_A_0001.jpg").write_bytes(b"x")
    assert labels("deepchange", tmp_path) == EXPECTED
    (note,) = list_dataset("deepchange", tmp_path).notes
    assert note == f"{folder}: 1 photos in no list left out, as train-set/P0003_C01_A_0001.jpg"


def test_a_listed_photo_that_is_missing_is_named_with_its_row(tmp_path: Path) -> None:
    write("deepchange", tmp_path)
    folder = tmp_path / "DeepChangeDataset"
    (folder / "train-set" / "P0001_C02_B_0002.jpg").unlink()
    (finding,) = list_dataset("deepchange", tmp_path).findings
    assert str(finding) == (
        f"{folder}/train-set/P0001_C02_B_0002.jpg is missing: {folder}/train-set-bbox.txt, line 2 lists it"
    )
    for file in (folder / "train-set").iterdir():
        file.unlink()
    with pytest.raises(
        MissingInputError, match=r"none of the 3 train photos is there, as .*train-set-bbox.txt, line 1"
    ):
        list_dataset("deepchange", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0001.jpg,11", "0001.jpg", r"line 1: has 1 fields \('P0001_C01_A_0001.jpg'\), expected FILE,TRACKLET"),
        ("0001.jpg,11", "0001.jpg,11,3", "line 1: has 3 fields"),
        (",11", ",x", "line 1: the tracklet is 'x', expected an integer >= 0"),
        (",11", ",-1", "line 1: the tracklet is '-1'"),
        (",11", ",1.5", "line 1: the tracklet is '1.5'"),
        (",11", ",nan", "line 1: the tracklet is 'nan'"),
        ("P0001_C01", "0001_C01", "line 1: the file is '0001_C01_A_0001.jpg', expected PID_CCAM_CLOTHES_..."),
        ("P0001_C01", "P0001_Cx", "line 1: the file is 'P0001_Cx_A_0001.jpg'"),
        ("P0001_C01", "../P0001_C01", "line 1: the file is '../P0001_C01_A_0001.jpg'"),
        ("A_0001.jpg,11", "A_0001.txt,11", "line 1: the file is 'P0001_C01_A_0001.txt'"),
        ("C02_B_0002.jpg,12", "C01_A_0001.jpg,12", r"line 2: P0001_C01_A_0001.jpg is in .*-bbox.txt, line 1 already"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    write("deepchange", tmp_path)
    change(tmp_path / "DeepChangeDataset" / "train-set-bbox.txt", old, new)
    with pytest.raises(InputError, match=rf"(?s)rows of the lists .* wrong:\n  .*train-set-bbox.txt, {message}"):
        list_dataset("deepchange", tmp_path)


def test_a_missing_list_says_what_to_get(tmp_path: Path) -> None:
    write("deepchange", tmp_path)
    (tmp_path / "DeepChangeDataset" / "test-set-query-bbox.txt").unlink()
    with pytest.raises(MissingInputError) as caught:
        list_dataset("deepchange", tmp_path)
    for part in ("DeepChangeDataset/test-set-query-bbox.txt is missing", "--raw", "data.raw_dir", "github.com"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="deepchange has no validation images"):
        list_dataset("deepchange", tmp_path, with_val=True)


def test_labels_of_outfits_keep_their_numbers_or_get_some() -> None:
    assert number_outfits(["7", "", "12", "007"]) == [7, -1, 12, 7]
    assert number_outfits(["u1", "u0", "", "u1", "10"]) == [2, 1, -1, 2, 0]


def test_a_dataset_of_an_earlier_version_has_no_tracklets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow_datasets as tfds

    from deskpro_jax.data.build import shards

    features, encoded = shards.features, shards.encoded
    later = ("tracklet", "scale")
    with monkeypatch.context() as earlier:
        plain = {name: feature for name, feature in features().items() if name not in later}
        earlier.setattr(shards, "features", lambda: tfds.features.FeaturesDict(plain))
        earlier.setattr(shards, "encoded", lambda e: {k: v for k, v in encoded(e).items() if k not in later})
        folder = builder.build("synthetic_tiny", tmp_path)
    new = builder.build("synthetic_tiny", tmp_path / "new")
    for split in ("train", "query"):
        file = folder / f"columns-{split}.npz"
        with np.load(file) as stored:
            columns = {name: stored[name] for name in stored if name not in later}
        np.savez(file, **columns)  # type: ignore[arg-type]
    assert builder.build("synthetic_tiny", tmp_path) == folder  # opens it as it is
    for split in ("train", "query", "gallery"):
        old, now = (dataset.load("synthetic_tiny", path, split) for path in (tmp_path, tmp_path / "new"))
        assert set(old.tracklet.tolist()) == set(old.scale.tolist()) == {-1}
        assert (old[0].tracklet, old[0].image_id) == (-1, now[0].image_id)
        assert old.metadata["checksums"] == now.metadata["checksums"]
    assert new != folder
