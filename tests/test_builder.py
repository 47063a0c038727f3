"""A built dataset holds what went in, byte for byte, says where it comes from, and is never half there."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from configs import base
from deskpro_jax.data import opening, records
from deskpro_jax.data.build import builder
from deskpro_jax.data.load import dataset
from deskpro_jax.data.schema import SPLITS, Example
from deskpro_jax.data.synthetic import generate as synthetic
from deskpro_jax.errors import InputError, MissingInputError

NAME = "synthetic_tiny"


@pytest.fixture
def data_dir(tiny_data: Path) -> Path:
    return tiny_data


@pytest.fixture(scope="module")
def generated() -> list[tuple[str, Example]]:
    """What the builder gets, with the split of each; drawing it takes seconds."""
    return list(synthetic.generate("tiny", 0))


@pytest.fixture(scope="module")
def drawn(generated: list[tuple[str, Example]]) -> dict[str, dict[str, Example]]:
    result: dict[str, dict[str, Example]] = defaultdict(dict)
    for split, example in generated:
        result[split][example.image_id] = example
    return result


def test_examples_come_back_byte_for_byte(data_dir: Path, drawn: dict[str, dict[str, Example]]) -> None:
    for split in SPLITS:
        loaded = dataset.load(NAME, data_dir, split)
        assert {example.image_id: example for example in map(loaded.__getitem__, range(len(loaded)))} == drawn[split]


def test_columns_describe_the_examples_at_the_same_position(data_dir: Path) -> None:
    loaded = dataset.load(NAME, data_dir, "train")
    for index in range(len(loaded)):
        example = loaded[index]
        assert loaded.image_id[index] == example.image_id
        assert (loaded.identity[index], loaded.camera[index], loaded.clothes[index]) == example[5:8]
        assert loaded.has_face[index] == (example.face is not None)
        assert loaded.has_restored_face[index] == (example.restored_face is not None)
        assert loaded.has_mask[index] == (example.parts is not None)
    assert not loaded.has_face.all()


def test_columns_are_collected_again_when_their_file_is_gone(data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(data_dir, tmp_path / "copy")
    file = records.dataset_path(NAME, tmp_path / "copy") / "columns-query.npz"
    file.unlink()
    loaded, kept = dataset.load(NAME, tmp_path / "copy", "query"), dataset.load(NAME, data_dir, "query")
    assert loaded.image_id == kept.image_id
    assert np.array_equal(loaded.identity, kept.identity)
    assert file.exists()


def test_metadata_tells_labels_origin_seed_versions_and_checksums(
    data_dir: Path, drawn: dict[str, dict[str, Example]]
) -> None:
    metadata = dataset.load(NAME, data_dir, "gallery").metadata
    assert metadata["label_scheme"] == "lip"
    assert metadata["clothing"] == [5, 6, 7, 8, 9, 10, 11, 12]
    assert metadata["seed"] == 0
    assert metadata["masks"]
    assert metadata["faces"]
    assert {"deskpro_jax", "pillow"} <= metadata["versions"].keys()
    assert metadata["checksums"] == {split: builder.checksum(list(drawn[split].values())) for split in SPLITS}
    changed = [*drawn["query"].values()]
    changed[0] = changed[0]._replace(clothes=99)
    assert metadata["checksums"]["query"] != builder.checksum(changed)


def test_tfds_reads_and_decodes_the_dataset(data_dir: Path) -> None:
    source = tfds.builder_from_directory(records.dataset_path(NAME, data_dir)).as_data_source("train")
    item = source[0]
    assert item["body"].dtype == np.uint8
    assert item["body"].shape[2] == 3
    assert item["parts"][0].shape == (*item["body"].shape[:2], 1)
    assert len(item["face"]) in (0, 1)


def test_building_again_keeps_what_is_there_unless_the_seed_differs(data_dir: Path) -> None:
    folder = records.dataset_path(NAME, data_dir)
    before = (folder / "dataset_info.json").stat().st_mtime_ns
    assert builder.build(NAME, data_dir) == folder
    assert (folder / "dataset_info.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"built with seed 0, data.build_seed asks for 5"):
        builder.build(NAME, data_dir, seed=5)


def test_an_older_version_is_read_as_it_is_with_a_warning(data_dir: Path, tmp_path: Path) -> None:
    """The folder of a version that is drawn no more; a newer one beside it goes first."""
    new = records.dataset_path(NAME, data_dir)
    old = tmp_path / new.relative_to(data_dir).with_name("1.0.0")
    shutil.copytree(new, old)
    for file in old.glob("*.json"):
        file.write_text(file.read_text().replace('"2.0.0"', '"1.0.0"'))
    warnings: list[str] = []
    assert builder.build(NAME, tmp_path, warn=warnings.append) == old
    assert warnings == [w for w in warnings if "version 1.0.0 of synthetic_tiny" in w and "version 2.0.0" in w]
    assert len(warnings) == 1
    assert len(dataset.load(NAME, tmp_path, "train")) == 48
    shutil.copytree(new, old.with_name("2.0.0"))
    assert builder.build(NAME, tmp_path, warn=warnings.append) == old.with_name("2.0.0")
    assert len(warnings) == 1


def test_a_drawn_dataset_of_another_size_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(synthetic.SIZES, "tiny", synthetic.SyntheticSize(8, 64, 4, 8, 16))
    with pytest.raises(InputError, match=r"has 48 training images, synthetic_tiny is drawn with 64 now: set data"):
        builder.build(NAME, data_dir)


def test_a_failed_build_does_not_look_finished(
    generated: list[tuple[str, Example]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True]

    def fails(size: str, seed: int, workers: int) -> object:
        yield from generated[:60]
        if broken[0]:
            raise InputError("image 0042 is broken")
        yield from generated[60:]

    class Failing:
        generate = staticmethod(fails)

    monkeypatch.setattr(builder, "generate", Failing)
    with pytest.raises(InputError, match="image 0042 is broken"):
        builder.build(NAME, tmp_path)
    assert not builder.is_built(NAME, tmp_path)
    with pytest.raises(MissingInputError, match="build it first"):
        dataset.load(NAME, tmp_path, "train")
    broken[0] = False
    builder.build(NAME, tmp_path)
    assert builder.is_built(NAME, tmp_path)


def test_a_misspelt_name_fails_with_the_near_matches(tmp_path: Path) -> None:
    for call in (builder.build, builder.is_built):
        with pytest.raises(InputError, match=r"'celeb_lihgt': there is no such dataset; did you mean celeb_light"):
            call("celeb_lihgt", tmp_path)
    with pytest.raises(InputError, match="'gallry' of dataset synthetic_tiny is unknown"):
        dataset.load(NAME, tmp_path, "gallry")


def test_a_missing_shard_is_an_error(data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(data_dir, tmp_path / "copy")
    folder = records.dataset_path(NAME, tmp_path / "copy")
    next(folder.glob("*-query.array_record-*")).unlink()
    with pytest.raises(MissingInputError, match="0 files of split 'query'"):
        dataset.load(NAME, tmp_path / "copy", "query")


def test_a_truncated_shard_is_an_error(data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(data_dir, tmp_path / "copy")
    shard = next(records.dataset_path(NAME, tmp_path / "copy").glob("*-query.array_record-*"))
    shard.write_bytes(shard.read_bytes()[:70_000])
    with pytest.raises(InputError, match=r"'query' in .* is damaged"):
        dataset.load(NAME, tmp_path / "copy", "query")


def test_columns_that_were_written_are_read_without_the_images(tmp_path: Path) -> None:
    examples = [Example(f"{i:04d}_c1_{i:06d}", b"", None, b"", None, i % 600, 1, -1) for i in range(2_000)]
    records.write_columns(tmp_path, "train", records.columns(examples))

    class Unread(list[Example]):
        def __getitem__(self, index: object) -> Example:  # type: ignore[override]
            raise AssertionError(f"example {index} is read")

        def __iter__(self) -> Iterator[Example]:
            raise AssertionError("all examples are read")

    values = records.read_columns(tmp_path, "train", Unread(examples))  # type: ignore[arg-type]
    assert values["image_id"][1_999] == "1999_c1_001999"


def test_subset_keeps_columns_and_images_together(data_dir: Path) -> None:
    whole = dataset.load(NAME, data_dir, "train")
    part = dataset.subset(dataset.subset(whole, np.arange(len(whole)) % 2 == 1), [3, 0])
    assert part.image_id == [whole.image_id[7], whole.image_id[1]]
    assert [part[0], part[1]] == [whole[7], whole[1]]
    assert np.array_equal(part.identity, whole.identity[[7, 1]])


def test_held_out_identities_are_nowhere_else_and_every_query_has_a_match(data_dir: Path) -> None:
    whole = dataset.load(NAME, data_dir, "train")
    train, query, gallery = dataset.hold_out(whole, 3, seed=0)
    assert len(train) + len(query) + len(gallery) == len(whole)
    assert len(set(train.identity)) == 5
    assert set(query.identity) == set(gallery.identity)
    assert not set(train.identity) & set(query.identity)
    assert not set(query.image_id) & set(gallery.image_id)
    assert dataset.hold_out(whole, 3, seed=0)[1].image_id == query.image_id
    assert dataset.hold_out(whole, 3, seed=1)[1].image_id != query.image_id
    with pytest.raises(InputError, match="validation_identities is 8, expected 1 to 7"):
        dataset.hold_out(whole, 8, seed=0)


def test_classes_are_positions_among_the_sorted_train_identities(data_dir: Path) -> None:
    whole = dataset.load(NAME, data_dir, "train")
    part = dataset.subset(whole, whole.identity > 2)
    classes = dataset.train_classes(part)
    assert classes.tolist() == sorted(set(part.identity.tolist()))
    assert np.array_equal(classes[dataset.class_indices(part.identity, classes)], part.identity)
    with pytest.raises(InputError, match=r"identities \[1, 2\] are not among the 6 classes"):
        dataset.class_indices(whole.identity, classes)


def test_images_without_a_face_can_be_left_out(data_dir: Path) -> None:
    whole = dataset.load(NAME, data_dir, "train")
    assert dataset.usable(whole, False, True) is whole
    assert dataset.usable(whole, True, False).has_face.all()
    faceless = dataset.subset(whole, ~whole.has_face)
    with pytest.raises(InputError, match=r"no image .*require_face=True"):
        dataset.usable(faceless, True, False)


def test_metadata_is_plain_json(data_dir: Path) -> None:
    file = records.dataset_path(NAME, data_dir) / "metadata.json"
    assert json.loads(file.read_text()) == dataset.load(NAME, data_dir, "train").metadata


def test_of_two_runs_that_need_a_dataset_one_builds_it(tmp_path: Path) -> None:
    config = base.get_config()
    config.data.name, config.data.data_dir = NAME, str(tmp_path / "data")
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda run: opening.build_data(config, tmp_path / run), ("one", "two")))
    assert folders[0] == folders[1]
    assert builder.is_built(NAME, tmp_path / "data")
    assert [path.name for path in folders[0].parent.iterdir()] == [folders[0].name]  # nothing incomplete stays
