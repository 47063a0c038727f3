"""Batches depend on (seed, phase, step) alone, and hold what Pillow decodes, crops and resizes."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import base
from deskpro_jax.data import records
from deskpro_jax.data.build import builder
from deskpro_jax.data.load import dataset, pipeline
from deskpro_jax.data.load.augment import normalise
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.data.schema import Example
from deskpro_jax.errors import InputError

NAME = "synthetic_tiny"
GOLDEN = Path(__file__).parent / "golden" / "preprocess.npz"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    builder.build(NAME, folder)
    return folder


@pytest.fixture(scope="module")
def train(data_dir: Path) -> ReIDSplit:
    return dataset.load(NAME, data_dir, "train")


@pytest.fixture
def config() -> ConfigDict:
    c = base.get_config()
    c.data.identities, c.data.images_per_identity = 4, 2
    c.data.body_size, c.data.face_size = (48, 24), (16, 16)
    return c


def take(split: ReIDSplit, config: ConfigDict, count: int, **kwargs: object) -> list[pipeline.Batch]:
    batches = pipeline.train_batches(split, config, **({"seed": 0, "phase": "student"} | kwargs))  # type: ignore[arg-type]
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def assert_same(found: list[pipeline.Batch], expected: list[pipeline.Batch]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_batch_has_the_agreed_fields(train: ReIDSplit, config: ConfigDict) -> None:
    (batch,) = take(train, config, 1)
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "body": ((8, 48, 24, 3), "uint8"),
        "face": ((8, 16, 16, 3), "uint8"),
        "restored_face": ((8, 16, 16, 3), "uint8"),
        "cloth_mask": ((8, 48, 24), "uint8"),
        "identity": ((8,), "int32"),
        "clothes": ((8,), "int32"),
        "clothes_range": ((8, 2), "int32"),
        "has_face": ((8,), "bool"),
        "has_mask": ((8,), "bool"),
        "valid": ((8,), "bool"),
    }
    assert batch["valid"].all()
    assert set(batch["identity"]) <= set(range(8))
    assert len(set(batch["identity"])) == 4


def test_a_batch_has_the_clothes_classes_of_its_images(train: ReIDSplit, config: ConfigDict) -> None:
    classes = dataset.clothes_classes(train)
    with contextlib.closing(
        pipeline.train_batches(train, config, seed=0, phase="student", fields=(), with_index=True, pad_to_multiple=5)
    ) as batches:
        batch = next(batches)
    assert batch["clothes"].tolist()[8:] == [-1, -1]
    for index, row, (first, end) in zip(
        batch["index"][:8], batch["clothes"][:8], batch["clothes_range"][:8], strict=True
    ):
        assert classes[row].tolist() == [train.identity[index], train.clothes[index]]
        assert set(classes[first:end, 0]) == {train.identity[index]}
        assert end - first == len(set(train.clothes[train.identity == train.identity[index]]))


def test_batches_are_the_same_whatever_the_workers(train: ReIDSplit, config: ConfigDict) -> None:
    expected = take(train, config, 10)
    for workers in (1, 2):
        config.data.workers = workers
        assert_same(take(train, config, 10), expected)


def test_a_resumed_run_gets_the_batches_it_would_have_got(train: ReIDSplit, config: ConfigDict) -> None:
    assert pipeline.steps_per_epoch(train, config) == 6
    expected = take(train, config, 15)
    for start in (1, 6, 13):
        assert_same(take(train, config, 15 - start, start_step=start), expected[start:])


def test_hosts_get_equal_parts_of_one_global_batch(train: ReIDSplit, config: ConfigDict) -> None:
    whole = take(train, config, 3)
    parts = [take(train, config, 3, process_index=host, process_count=4) for host in range(4)]
    joined = [{name: np.concatenate([p[step][name] for p in parts]) for name in whole[0]} for step in range(3)]
    assert_same(joined, whole)
    with pytest.raises(InputError, match="batch of 8 images does not divide among 3 hosts"):
        take(train, config, 1, process_count=3)


def test_seed_and_phase_change_the_batches_and_epochs_differ(train: ReIDSplit, config: ConfigDict) -> None:
    first = take(train, config, 7)
    for other in (take(train, config, 1, seed=1)[0], take(train, config, 1, phase="teacher")[0], first[6]):
        assert not np.array_equal(first[0]["body"], other["body"])


def test_the_plain_shuffle_yields_every_image_once_per_epoch(train: ReIDSplit, config: ConfigDict) -> None:
    config.data.sampler = "images"
    steps = pipeline.steps_per_epoch(train, config)
    assert steps == len(train) // 8
    with contextlib.closing(
        pipeline.train_batches(train, config, seed=0, phase="student", fields=(), with_index=True)
    ) as batches:
        taken = np.concatenate([next(batches)["index"] for _ in range(steps)])
    assert len(set(taken.tolist())) == 8 * steps
    assert_same(take(train, config, 3, start_step=2), take(train, config, 5)[2:])
    config.data.identities = 1000
    with pytest.raises(InputError, match="different ones in a batch"):
        take(train, config, 1)


def test_photos_are_resized_by_the_filter_of_the_configuration(train: ReIDSplit, config: ConfigDict) -> None:
    even, cubic = (take_one_body(train, config, name) for name in ("bilinear", "bicubic"))
    assert pipeline.device_enlarges(train, config, ("body",)) == ()
    image = Image.open(io.BytesIO(train[0].body)).convert("RGB")
    np.testing.assert_array_equal(even, np.asarray(image.resize((24, 48), Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(cubic, np.asarray(image.resize((24, 48), Image.Resampling.BICUBIC)))


def take_one_body(split: ReIDSplit, config: ConfigDict, interpolation: str) -> np.ndarray:
    config.data.interpolation = interpolation
    with contextlib.closing(pipeline.eval_batches(split, config, 4, ("body",))) as batches:
        return next(batches)["body"][0]


def test_padding_rows_are_not_valid(train: ReIDSplit, config: ConfigDict) -> None:
    whole = take(train, config, 2)
    padded = take(train, config, 2, pad_to_multiple=5)
    assert padded[0]["valid"].tolist() == [True] * 8 + [False] * 2
    assert not padded[0]["body"][8:].any()
    assert_same([{name: value[:8] for name, value in batch.items()} for batch in padded], whole)


def test_only_the_fields_asked_for_are_there(train: ReIDSplit, config: ConfigDict) -> None:
    (batch,) = take(train, config, 1, fields=("restored_face",))
    assert batch.keys() == {"restored_face", "identity", "clothes", "clothes_range", "has_face", "has_mask", "valid"}
    with pytest.raises(InputError, match=r"\['faces'\] are unknown"):
        take(train, config, 1, fields=("faces",))


def picture(height: int, width: int, mode: str = "RGB") -> tuple[Image.Image, bytes]:
    """A smooth random picture, and the same as a PNG file."""
    noise = np.random.default_rng(height).integers(0, 256, (5, 3, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    return image, file.getvalue()


def split_of(examples: list[Example]) -> ReIDSplit:
    columns = records.columns(examples)
    image_id = columns.pop("image_id").tolist()
    metadata = {"label_scheme": "lip", "clothing": [5, 9]}
    positions = np.arange(len(examples))
    return ReIDSplit("own", "train", image_id, **columns, metadata=metadata, records=examples, positions=positions)


def labels() -> tuple[np.ndarray, bytes]:
    values = np.random.default_rng(0).integers(0, 20, (96, 48), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return values, file.getvalue()


def test_without_a_crop_images_are_what_pillow_makes(config: ConfigDict) -> None:
    body, body_file = picture(100, 60)
    face, face_file = picture(20, 18)
    values, parts = labels()
    split = split_of([Example("a", body_file, parts, face_file, face_file, 7, 1, -1)])
    (batch,) = pipeline.eval_batches(split, config, 2, pipeline.FIELDS)
    np.testing.assert_array_equal(batch["body"][0], np.asarray(body.resize((24, 48), Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(batch["face"][0], np.asarray(face.resize((16, 16), Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(batch["cloth_mask"][0], ~np.isin(values[1::2, 1::2], (5, 9)))
    config.data.clothing = (1, 2, 3)
    (batch,) = pipeline.eval_batches(split, config, 2, pipeline.FIELDS)
    np.testing.assert_array_equal(batch["cloth_mask"][0], ~np.isin(values[1::2, 1::2], (1, 2, 3)))
    config.data.clothing = (1, 20)
    with pytest.raises(InputError, match=r"data.clothing has \[20\], expected labels from 0 to 19"):
        pipeline.eval_batches(split, config, 2)


def test_preprocessing_agrees_with_the_published_code() -> None:
    golden = np.load(GOLDEN)
    meta = json.loads(str(golden["meta"]))
    for name in ("small", "large"):
        resized = pipeline.resize(golden[name], tuple(meta["size"]))
        found = np.asarray(normalise(resized[None]))[0]
        every = meta["subsample"]
        np.testing.assert_allclose(found[::every, ::every], golden[f"{name}_out"], rtol=0, atol=1e-6)


def ramp(height: int, width: int) -> bytes:
    """Red grows from left to right and green from top to bottom, so a crop can be read off the result."""
    y, x = np.mgrid[0:height, 0:width]
    values = np.stack([x * 255 / (width - 1), y * 255 / (height - 1), 0 * x], -1)
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_all_images_of_a_row_share_one_fresh_crop(config: ConfigDict) -> None:
    config.augment.crop, config.augment.crop_scale = 1.0, 2.0
    config.data.identities, config.data.images_per_identity = 1, 8
    config.data.body_size, config.data.face_size = (64, 32), (64, 64)
    half = np.where(np.arange(96) < 48, 5, 0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.repeat(half[:, None], 40, 1)).save(file, "PNG")
    split = split_of([Example("a", ramp(128, 64), file.getvalue(), ramp(90, 90), ramp(256, 256), 7, 1, -1)])
    batches = take(split, config, 2)
    seen = set()
    for batch in batches:
        for row in range(8):
            windows = [(batch[name][row, 0, 0, :2], batch[name][row, -1, -1, :2]) for name in pipeline.FIELDS[:3]]
            for low, high in windows:
                np.testing.assert_allclose(low.astype(int), windows[0][0].astype(int), atol=5)
                np.testing.assert_allclose((high - low).astype(int), 127, atol=6)
            top = windows[2][0][1] / 255
            share = 1 - batch["cloth_mask"][row].mean()  # the upper half of the image is clothing
            assert share == pytest.approx(np.clip((0.5 - top) / 0.5, 0, 1), abs=0.03)
            seen.add(tuple(windows[2][0].tolist()))
    assert len(seen) >= 15


def test_crops_come_with_the_configured_probability(config: ConfigDict) -> None:
    config.augment.crop, config.augment.crop_scale = 0.25, 1.5
    config.data.identities, config.data.images_per_identity = 1, 100
    config.data.body_size = (8, 4)
    split = split_of([Example("a", ramp(64, 32), None, None, None, 7, 1, -1)])
    (plain,) = pipeline.eval_batches(split, config, 1, ("body",))
    rows = np.concatenate([batch["body"] for batch in take(split, config, 10, fields=("body",))])
    cropped = (rows != plain["body"]).any(axis=(1, 2, 3)).mean()
    assert cropped == pytest.approx(0.25, abs=0.05)
    config.augment.crop = 0.0
    assert (take(split, config, 1, fields=("body",))[0]["body"] == plain["body"]).all()


def test_missing_faces_and_masks_are_zeros_and_said_so(config: ConfigDict) -> None:
    _, photo = picture(40, 20)
    _, parts = labels()
    split = split_of(
        [
            Example("a", photo, parts, photo, photo, 7, 1, -1),
            Example("b", photo, None, None, None, 8, 1, -1),
            Example("c", photo, parts, photo, None, 9, 1, -1),
        ]
    )
    (batch,) = pipeline.eval_batches(split, config, 4, pipeline.FIELDS)
    assert batch["has_face"].tolist() == [True, False, False, False]
    assert batch["has_mask"].tolist() == [True, False, True, False]
    assert not batch["face"][1].any()
    assert not batch["cloth_mask"][1].any()
    (batch,) = pipeline.eval_batches(split, config, 4, ("face",))
    assert batch["has_face"].tolist() == [True, False, True, False]
    config.data.require_face = True
    config.data.identities = 1
    assert all((batch["identity"] == 0).all() for batch in take(split, config, 3))


def test_evaluation_goes_through_the_split_once_in_order(data_dir: Path, config: ConfigDict) -> None:
    gallery = dataset.load(NAME, data_dir, "gallery")
    batches = list(pipeline.eval_batches(gallery, config, 6))
    assert len(batches) == 3
    index, valid, identity = (np.concatenate([b[k] for b in batches]) for k in ("index", "valid", "identity"))
    assert index.tolist() == [*range(16), -1, -1]
    assert valid.tolist() == [True] * 16 + [False] * 2
    assert identity.tolist() == [*gallery.identity, -1, -1]
    halves = [list(pipeline.eval_batches(gallery, config, 6, process_index=h, process_count=2)) for h in (0, 1)]
    joined = [{name: np.concatenate([halves[0][i][name], halves[1][i][name]]) for name in batches[i]} for i in range(3)]
    assert_same(joined, batches)


@pytest.fixture
def damaged(data_dir: Path, tmp_path: Path) -> tuple[ReIDSplit, int]:
    """A train split with one flipped byte in one record, and the position of that record."""
    shutil.copytree(data_dir, tmp_path / "copy")
    whole = dataset.load(NAME, data_dir, "train")
    index = 11
    shard = next(records.dataset_path(NAME, tmp_path / "copy").glob("*-train.array_record-*"))
    content = bytearray(shard.read_bytes())
    # The middle of this image's bytes; the file format keeps them as they are, unless they cross a block.
    needle = whole[index].body[2000:2100]
    assert content.count(needle) == 1
    content[content.index(needle) + 50] ^= 0x01
    shard.write_bytes(content)
    return dataset.load(NAME, tmp_path / "copy", "train"), index


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_is_named(damaged: tuple[ReIDSplit, int], config: ConfigDict, workers: int) -> None:
    split, index = damaged
    config.data.workers = workers
    expected = rf"record of image {split.image_id[index]} in synthetic_tiny/train cannot be read .*data.skip_corrupt"
    with pytest.raises(InputError, match=expected):
        take(split, config, 12)
    with pytest.raises(InputError, match=expected):
        list(pipeline.eval_batches(split, config, 16))


def test_a_damaged_record_is_replaced_and_counted_when_asked(
    damaged: tuple[ReIDSplit, int], train: ReIDSplit, config: ConfigDict
) -> None:
    split, index = damaged
    image_id = split.image_id[index]
    config.data.skip_corrupt = True
    results = []
    for workers in (0, 1):
        config.data.workers = workers
        batches = pipeline.train_batches(split, config, seed=0, phase="student")
        results.append(list(itertools.islice(batches, 12)))
        assert batches.skipped.keys() == {image_id}
        assert batches.skipped[image_id] >= 1
        batches.close()
    assert_same(results[0], results[1])
    config.data.workers = 0
    replaced = 0
    for batch, whole in zip(results[0], take(train, config, 12), strict=True):
        np.testing.assert_array_equal(batch["identity"], whole["identity"])
        replaced += int((batch["body"] != whole["body"]).any(axis=(1, 2, 3)).sum())
    assert replaced >= 1
    evaluated = pipeline.eval_batches(split, config, 48)
    (batch,) = evaluated
    assert np.flatnonzero(~batch["valid"]).tolist() == [index]
    assert evaluated.skipped == {image_id: 1}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}], ids=str)
def test_jpeg_of_every_kind_is_decoded_as_pillow_does(mode: str, options: dict[str, int], config: ConfigDict) -> None:
    file = io.BytesIO()
    picture(75, 43)[0].convert(mode).save(file, "JPEG", quality=80, **options)  # type: ignore[arg-type]
    config.data.body_size = (75, 43)
    (batch,) = pipeline.eval_batches(split_of([Example("a", file.getvalue(), None, None, None, 7, 1, -1)]), config, 1)
    with Image.open(file) as expected:
        np.testing.assert_array_equal(batch["body"][0], np.asarray(expected.convert("RGB")))


def test_a_cut_jpeg_is_named(config: ConfigDict) -> None:
    file = io.BytesIO()
    picture(75, 43)[0].save(file, "JPEG")
    split = split_of([Example("a", file.getvalue()[:-300], None, None, None, 7, 1, -1)])
    with pytest.raises(InputError, match=r"the body of image a in own/train cannot be read .*truncated"):
        list(pipeline.eval_batches(split, config, 1))


def test_an_undecodable_image_is_named(config: ConfigDict) -> None:
    _, photo = picture(40, 20)
    split = split_of([Example("0001_c1_1", photo, None, b"no image", None, 7, 1, -1)])
    with pytest.raises(InputError, match="the face of image 0001_c1_1 in own/train cannot be read"):
        list(pipeline.eval_batches(split, config, 1))
    config.data.skip_corrupt, config.data.identities = True, 1
    with pytest.raises(InputError, match="no image of identity 7 in own/train can be read"):
        take(split, config, 1)


def test_fields_that_do_not_fit_are_errors(train: ReIDSplit, config: ConfigDict) -> None:
    config.data.identities = 9
    with pytest.raises(InputError, match=r"8 identities and data.identities asks for 9"):
        take(train, config, 1)
    config.data.identities = 4
    with pytest.raises(InputError, match="the seed is -1"):
        take(train, config, 1, seed=-1)
    config.data.workers = -1
    with pytest.raises(InputError, match=r"data.workers is -1"):
        take(train, config, 1)
    config.data.workers = 0
    config.data.body_size = (0, 4)
    with pytest.raises(InputError, match=r"data.body_size is \(0, 4\)"):
        take(train, config, 1)
    config.data.body_size = (8, 4)
    config.augment.crop_scale = 0.9
    with pytest.raises(InputError, match=r"augment.crop_scale is 0.9"):
        take(train, config, 1)
