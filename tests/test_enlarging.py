"""Photos enlarged on the device are those that Pillow enlarges, to the last bit."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from PIL import Image

from configs import base
from deskpro_jax.data.build import builder
from deskpro_jax.data.load import dataset, enlarging, pipeline
from deskpro_jax.data.load.dataset import ReIDSplit


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> ReIDSplit:
    folder = tmp_path_factory.mktemp("built")
    builder.build("synthetic_tiny", folder)
    return dataset.load("synthetic_tiny", folder, "train")


def test_any_photo_and_window_as_pillow_enlarges_it() -> None:
    rng, size = np.random.default_rng(5), (60, 33)
    photos, rows, columns, expected = [], [], [], []
    for number in range(150):
        height, width = (int(rng.integers(1, most + 1)) for most in size)
        photo = rng.integers(0, 256, (height, width, 3), np.uint8)
        low, high = np.sort(rng.random((2, 2)), axis=0) if number % 3 else (np.zeros(2), np.ones(2))
        box = (low[0] * width, low[1] * height, high[0] * width, high[1] * height)
        expected.append(np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BILINEAR, box=box)))
        photos.append(np.full((*size, 3), 7, np.uint8))  # what lies around the photo has no part in it
        photos[-1][:height, :width] = photo
        rows.append(enlarging.taps(height, box[1], box[3], size[0]))
        columns.append(enlarging.taps(width, box[0], box[2], size[1]))
    found = jax.jit(enlarging.enlarge)(np.stack(photos), np.stack(rows), np.stack(columns))
    np.testing.assert_array_equal(found, np.stack(expected))


def test_nothing_is_made_smaller() -> None:
    with pytest.raises(ValueError, match=r"a window of 20\.5 pixels is not enlarged to 20"):
        enlarging.taps(40, 3.0, 23.5, 20)


@pytest.mark.parametrize(
    ("size", "face"),
    [((256, 128), (64, 60)), ((300, 150), (30, 30)), ((384, 128), (224, 224)), ((255, 200), (112, 112))],
)
def test_batches_are_those_that_the_host_resizes(
    split: ReIDSplit, size: tuple[int, int], face: tuple[int, int]
) -> None:
    config = base.get_config()
    config.data.identities, config.data.images_per_identity = 4, 2
    config.data.body_size, config.data.face_size = size, face  # of 256 x 128, about 30 x 30, and 112 x 112 restored
    config.augment.crop = 0.7
    kinds = []
    for enlarge in ((), ("body", "face", "restored_face")):
        batches = pipeline.train_batches(split, config, seed=1, phase="student", pad_to_multiple=3, enlarge=enlarge)
        kinds.append([enlarging.placed(batch) for batch in itertools.islice(batches, 3)])
        batches.close()
    for expected, found in zip(*kinds, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_only_smaller_photos_are_left_to_the_device(split: ReIDSplit) -> None:
    config = base.get_config()
    asked = {(256, 128): False, (384, 128): True, (300, 150): True, (255, 200): False, (96, 48): False}
    config.data.face_size = (100, 100)  # faces are smaller, restored ones larger
    for size, expected in asked.items():
        config.data.body_size = size
        small = ("body", "face") if expected else ("face",)
        assert pipeline.device_enlarges(split, config, pipeline.FIELDS) == small, size
    assert pipeline.device_enlarges(split, config, ("restored_face", "cloth_mask")) == ()
