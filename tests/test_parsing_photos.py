"""The square crop that SCHP sees of a photo, and labels on the photo's pixels, are those of the published code.

Golden cases come from tests/golden/data_prep, or from the folder `data_prep` in the one that DESKPRO_GOLDEN names.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

import data_prep_golden as golden
from data_prep.parsing import interpolation, postprocess
from data_prep.parsing.postprocess import label_map, photo_logits
from data_prep.parsing.preprocess import crop
from deskpro_jax.errors import InputError


def photo_cases() -> list[Any]:
    found = [
        pytest.param(path.name, key.removesuffix("_img"), id=f"{path.stem}-{key.removesuffix('_img')}")
        for path in sorted(golden.FOLDER.glob("schp_prepost*.npz"))
        for key in np.load(path).files
        if key.endswith("_img")
    ]
    skip = pytest.mark.skip(reason=f"{golden.FOLDER} holds no crops of SCHP")
    return found or [pytest.param("", "", id="none", marks=skip)]


def waves(size: int, classes: int, seed: int) -> np.ndarray:
    """Returns the logits [size, size, classes] of the golden cases: two waves a class, shorter from class to class."""
    y, x = (np.arange(size) / size for _ in range(2))
    y, x, c = y[:, None, None], x[None, :, None], np.arange(classes)
    first = np.sin(2 * np.pi * ((c + 2) * x / 1.7 + (c + 1) * y) + seed + c)
    second = np.cos(2 * np.pi * ((c + 1) * x - (2 * c + 1) * y / 1.3) - seed)
    return (2 * first + 2 * second).astype(np.float32)


@pytest.mark.parametrize(("file", "case"), photo_cases())
def test_the_crop_and_the_labels_on_the_photo_are_those_of_the_published_code(file: str, case: str) -> None:
    data, _ = golden.arrays(file)
    height, width, size = map(int, data[f"{case}_size"])
    stride = -(-size // len(data[f"{case}_input_sub8"]))
    np.testing.assert_array_equal(crop(data[f"{case}_img"], size)[::stride, ::stride], data[f"{case}_input_sub8"])
    key = next(key for key in data if re.fullmatch(rf"{case}_logits_seed\d+_sub\d+", key))
    seed, stride = map(int, re.findall(r"\d+", key.removeprefix(case)))
    logits = waves(size, data[key].shape[-1], seed)
    np.testing.assert_allclose(logits[::stride, ::stride], data[key], atol=1e-6)
    np.testing.assert_allclose(photo_logits(logits, height, width, size), data[f"{case}_restored"], atol=2e-6)
    np.testing.assert_array_equal(label_map(logits, height, width, size), data[f"{case}_parsing"])


@pytest.mark.parametrize(("height", "width"), [(1, 9), (64, 2), (33, 33), (30, 70)])
def test_a_crop_of_the_photos_own_size_is_the_photo_in_the_middle_of_black(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (height, width, 3), np.uint8)
    size = max(height, width)
    top, left = (size - height) // 2, (size - width) // 2
    expected = np.zeros((size, size, 3), np.uint8)
    expected[top : top + height, left : left + width] = image
    np.testing.assert_array_equal(crop(image, size), expected)


def test_one_colour_stays_that_colour_at_every_scale() -> None:
    for height, width, size in ((20, 20, 473), (900, 900, 473), (5, 5, 512)):
        image = np.full((height, width, 3), (3, 90, 255), np.uint8)
        # The last row and column may lie a rounding of the position beyond the photo, towards black.
        inside = crop(image, size)[:-1, :-1]
        np.testing.assert_array_equal(inside, np.broadcast_to(image[0, 0], inside.shape))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), "u1")]
)
def test_a_photo_that_is_no_rgb_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match=re.escape(str(image.shape))):
        crop(image, 473)


@pytest.mark.parametrize(("height", "width", "size"), [(50, 20, 65), (21, 90, 65), (17, 17, 33), (1, 1, 33)])
def test_labels_are_the_largest_of_logits_enlarged_and_sampled_step_by_step(height: int, width: int, size: int) -> None:
    logits = np.random.default_rng(0).standard_normal((17, 9, 4)).astype(np.float32)
    rows, columns = (interpolation.aligned_resize(n, size) for n in (17, 9))
    enlarged = np.einsum("yi,ijc,xj->yxc", rows, logits, columns)
    scale = (size - 1) / max(height - 1, width - 1, 1)
    expected = np.zeros((height, width, 4))
    for y, x in itertools.product(range(height), range(width)):
        across, down = (
            (position - (extent - 1) / 2) * scale + (size - 1) / 2 for position, extent in ((x, width), (y, height))
        )
        weights = [np.maximum(1 - np.abs(np.arange(size) - at), 0) for at in (down, across)]
        expected[y, x] = np.einsum("y,yxc,x->c", weights[0], enlarged, weights[1])
    np.testing.assert_allclose(photo_logits(logits, height, width, size), expected, atol=1e-4)
    labels = label_map(logits, height, width, size)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected.argmax(-1))


def test_blocks_of_rows_are_not_seen_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).standard_normal((17, 17, 4)).astype(np.float32)
    whole = label_map(logits, 50, 20, 65)
    monkeypatch.setattr(postprocess, "MAX_VALUES", 4 * 20 * 3)
    np.testing.assert_array_equal(label_map(logits, 50, 20, 65), whole)
    assert len(np.unique(whole)) == 4


def test_of_equal_logits_the_first_label_wins() -> None:
    logits = np.zeros((9, 9, 3), np.float32)
    logits[..., 1:] = 1.0
    assert (label_map(logits, 20, 10, 33) == 1).all()


def test_logits_of_a_whole_batch_and_photos_without_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="expected"):
        label_map(np.zeros((1, 9, 9, 3), np.float32), 20, 10, 33)
    with pytest.raises(InputError, match="20x0"):
        label_map(np.zeros((9, 9, 3), np.float32), 20, 0, 33)
