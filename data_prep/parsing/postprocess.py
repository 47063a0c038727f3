"""From the network's logits to a map of labels on the photo's own pixels."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, UInt8

from data_prep.parsing.interpolation import aligned_resize
from data_prep.parsing.square import steps, taps_in_square
from deskpro_jax.errors import InputError

MAX_VALUES = 1 << 24  # logits of the photo that are in memory at once (64 MiB)


def label_map(
    logits: Float[np.ndarray, "rows columns classes"], height: int, width: int, size: int
) -> UInt8[np.ndarray, "height width"]:
    """Returns the likeliest label of every pixel of a photo.

    As published: logits are enlarged to the crop's size, each is carried back to the photo by the inverse of the crop's
    map, and then the largest wins, the first of equal ones. Both steps are linear and work along one axis at a time,
    so that one matrix for the rows and one for the columns do them at once.

    Args:
        logits: of one crop, at any resolution.
        height: of the photo in pixels.
        width: of the photo in pixels.
        size: pixels along a side of the crop.

    Returns:
        Labels 0..classes-1.

    Raises:
        InputError: the logits are not those of one crop, or the photo has no pixels.
    """
    labels = np.zeros((height, width), np.uint8)
    for start, block in _photo_logits(logits, height, width, size):
        best, rows = block[0].copy(), labels[start : start + block.shape[1]]
        for label in range(1, len(block)):
            np.putmask(rows, block[label] > best, np.uint8(label))
            np.maximum(best, block[label], out=best)
    return labels


def photo_logits(
    logits: Float[np.ndarray, "rows columns classes"], height: int, width: int, size: int
) -> Float32[np.ndarray, "height width classes"]:
    """Returns the logits of every pixel of a photo, all at once; arguments as for `label_map`."""
    blocks = [block for _, block in _photo_logits(logits, height, width, size)]
    return np.concatenate(blocks, axis=1).transpose(1, 2, 0)


def _photo_logits(logits: np.ndarray, height: int, width: int, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the photo's logits [classes, rows, width] in blocks of rows, each with its first row's number."""
    if logits.ndim != 3 or not logits.size or min(height, width) < 1:
        raise InputError(
            f"logits of shape {logits.shape} for a photo of {height}x{width}; expected [rows, columns, classes] of one"
            " crop and a photo that has pixels."
        )
    rows, columns, classes = logits.shape
    longest = steps(height, width)
    down = _matrix(height, rows, longest, size, down=True)
    across = _matrix(width, columns, longest, size, down=False)
    by_class = np.ascontiguousarray(np.asarray(logits).transpose(2, 0, 1), np.float32)
    wide = np.matmul(by_class, across.T)
    count = max(MAX_VALUES // (classes * width), 1)
    for start in range(0, height, count):
        yield start, np.matmul(down[start : start + count], wide)


@functools.lru_cache(maxsize=64)
def _matrix(extent: int, source: int, longest: int, size: int, *, down: bool) -> np.ndarray:
    """Returns [extent, source]: from logits along one axis to the photo's pixels along it, zero outside the crop."""
    taps = taps_in_square(extent, longest, size, down=down)
    enlarged = aligned_resize(source, size)
    matrix = np.zeros((extent, source))
    for step, weight in ((0, 1.0 - taps.fraction.astype(np.float64)), (1, taps.fraction)):
        index = taps.before + step
        inside = (index >= 0) & (index < size)
        matrix[inside] += weight[inside, None] * enlarged[index[inside]]
    return matrix.astype(np.float32)
