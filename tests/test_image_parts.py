"""Parts are cut as published and resized as MATLAB does: as Pillow inside the image, mirrored at its edges."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deskpro_jax.models.image_parts import IMAGE_PARTS, part_rows, resize_rows, resize_weights

PHOTO = np.random.default_rng(0).standard_normal((2, 96, 64, 3)).astype(np.float32)


def test_neighbours_share_a_row_and_the_whole_is_last() -> None:
    assert part_rows(256) == {
        "1_1": (0, 86),
        "1_2": (85, 171),
        "1_3": (170, 256),
        "2_1": (0, 128),
        "2_2": (127, 256),
        "all": (0, 256),
    }
    assert tuple(part_rows(7)) == IMAGE_PARTS


@pytest.mark.parametrize("size", [(224, 224), (40, 30), (96, 20)])
def test_inside_the_image_it_is_pillows_bicubic(size: tuple[int, int]) -> None:
    rows = 10, 75
    resized = np.asarray(resize_rows(jnp.asarray(PHOTO), rows, size))
    assert resized.shape == (2, *size, 3)
    margins = [int(np.ceil(3 * max(1, length / cut))) for length, cut in zip(size, (65, 64), strict=True)]
    inside = tuple(slice(margin, -margin) for margin in margins)
    for colour in range(3):
        plane = Image.fromarray(PHOTO[1, rows[0] : rows[1], :, colour])
        expected = np.asarray(plane.resize(size[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(resized[1, ..., colour][inside], expected[inside], atol=2e-5)


def test_beyond_the_edges_is_the_mirrored_image() -> None:
    line = np.random.default_rng(1).standard_normal(9)
    for length in (4, 9, 31):
        mirrored = np.concatenate([line[::-1], line, line[::-1]])
        wide = resize_weights(27, 3 * length) @ mirrored
        np.testing.assert_allclose(resize_weights(9, length) @ line, wide[length : 2 * length], atol=1e-12)
        np.testing.assert_allclose(resize_weights(9, length).sum(1), 1, atol=1e-12)


def test_a_part_of_the_right_size_stays_as_it_is() -> None:
    np.testing.assert_array_equal(resize_rows(jnp.asarray(PHOTO), (0, 96), (96, 64)), PHOTO)
