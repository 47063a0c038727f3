"""Parts of a photo, cut and resized on the device as MATLAB's `imresize` does: bicubic, antialiased, edges mirrored."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

IMAGE_PARTS = ("1_1", "1_2", "1_3", "2_1", "2_2", "all")  # thirds and halves from the top down, the whole


def part_rows(height: int) -> dict[str, tuple[int, int]]:
    """Returns the rows [start, end) of each part of an image; neighbours share a row.

    Reference: part_partition.m of ReIDCaps' code.
    """
    rows = {}
    for count, name in ((3, "1"), (2, "2")):
        ends = [math.ceil(number * height / count) for number in range(count + 1)]
        for number in range(count):
            rows[f"{name}_{number + 1}"] = (max(ends[number] - 1, 0), ends[number + 1])
    return rows | {"all": (0, height)}


def resize_rows(
    images: Float[Array, "batch height width 3"], rows: tuple[int, int], size: tuple[int, int]
) -> Float[Array, "batch out_height out_width 3"]:
    """Cuts rows [start, end) out of images and resizes them.

    Args:
        images: of any scale: weights sum to one, so normalised images stay normalised. Colours are not rounded.
        rows: first row, and the one after the last.
        size: height and width of the result.
    """
    cut, highest = images[:, rows[0] : rows[1]], jax.lax.Precision.HIGHEST
    for axis, length in ((1, size[0]), (2, size[1])):
        weights = resize_weights(cut.shape[axis], length)
        if not np.array_equal(weights, np.eye(length, cut.shape[axis])):
            moved = jnp.tensordot(jnp.asarray(weights, cut.dtype), cut, (1, axis), precision=highest)
            cut = jnp.moveaxis(moved, 0, axis)
    return cut


@functools.cache
def resize_weights(size: int, length: int) -> Float[np.ndarray, "length size"]:
    """Returns the weights of bicubic resizing from `size` to `length` pixels, float64.

    The cubic kernel with a = -0.5 (Keys, 1981), as wide as the scale where the image becomes smaller; what it reads
    beyond the edges is the mirrored image.
    """
    scale = length / size
    stretch = min(scale, 1.0)
    centres = (np.arange(length) + 0.5) / scale - 0.5
    reach = math.ceil(2 / stretch) + 1
    pixels = np.floor(centres).astype(int)[:, None] + np.arange(-reach, reach + 1)
    weights = _cubic(stretch * (centres[:, None] - pixels))
    mirrored = np.mod(pixels, 2 * size)
    mirrored = np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)
    matrix = np.zeros((length, size))
    np.add.at(matrix, (np.arange(length)[:, None], mirrored), weights / weights.sum(1, keepdims=True))
    return matrix


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))
