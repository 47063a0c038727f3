"""Linear maps between grids of pixels: bilinear resizing with aligned corners, adaptive average pooling."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float, Float64, Int


def neighbours(source: int, target: int) -> tuple[Int[np.ndarray, " target"], Float64[np.ndarray, " target"]]:
    """Returns the positions of the pixels of a row of `target` on one of `source`, first and last on first and last.

    Args:
        source: pixels of the row that is resized.
        target: pixels of the result.

    Returns:
        Of each pixel the neighbour before it, at most source - 2 (0 for a single pixel), and how far from that
        towards the next it lies, 0..1.
    """
    positions = np.arange(target) * ((source - 1) / max(target - 1, 1))
    before = np.minimum(positions.astype(int), max(source - 2, 0))
    return before, positions - before


def aligned_resize(source: int, target: int) -> Float64[np.ndarray, "target source"]:
    """Returns the matrix that resizes a row as PyTorch's linear interpolation with align_corners=True does."""
    before, fraction = neighbours(source, target)
    matrix = np.zeros((target, source))
    rows = np.arange(target)
    np.add.at(matrix, (rows, before), 1.0 - fraction)
    np.add.at(matrix, (rows, np.minimum(before + 1, source - 1)), fraction)
    return matrix


def adaptive_mean(source: int, bins: int) -> Float64[np.ndarray, "bins source"]:
    """Returns the matrix of PyTorch's adaptive average pooling: from floor(i n / bins) to ceil((i + 1) n / bins)."""
    matrix = np.zeros((bins, source))
    for i in range(bins):
        start, stop = i * source // bins, -(-(i + 1) * source // bins)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix


def resize(x: Float[Array, "batch height width channels"], height: int, width: int) -> Array:
    """Resizes feature maps bilinearly with aligned corners.

    Neighbours are gathered: as two products with interpolation matrices it takes twenty times as long on a CPU.

    Args:
        x: feature maps.
        height: of the result in pixels.
        width: of the result in pixels.

    Returns:
        Feature maps [batch, height, width, channels] in the type of `x`.
    """
    for axis, size in ((1, height), (2, width)):
        if x.shape[axis] == size:
            continue
        before, fraction = neighbours(x.shape[axis], size)
        after = np.minimum(before + 1, x.shape[axis] - 1)
        fraction = fraction.reshape((-1, 1, 1) if axis == 1 else (-1, 1)).astype(x.dtype)
        x = x.take(before, axis) * (1 - fraction) + x.take(after, axis) * fraction
    return x
