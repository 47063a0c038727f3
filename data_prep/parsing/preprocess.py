"""From a photo to the square crop that SCHP sees, pixel by pixel as OpenCV 5's bilinear `warpAffine` makes it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8

from data_prep.parsing.square import Taps, steps, taps_in_photo
from deskpro_jax.errors import InputError


def crop(image: UInt8[np.ndarray, "height width 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Scales a photo into a square, its centre on the square's centre, black beside it.

    The published network was trained on images resized this way: without antialiasing, edges aligned on pixel centres.

    Args:
        image: the photo.
        size: pixels along a side of the square.

    Returns:
        The crop, with the photo's channels.

    Raises:
        InputError: it is not a uint8 image of three channels, or has no pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(f"the photo is {image.dtype} {image.shape}; expected uint8 [height, width, 3] in RGB.")
    height, width = image.shape[:2]
    longest = steps(height, width)
    down = taps_in_photo(height, longest, size, down=True)
    across = taps_in_photo(width, longest, size, down=False)
    rows, position = np.unique(np.stack([down.before, down.before + 1]), return_inverse=True)
    above, below = _interpolate_rows(image, rows, across)[position.reshape(2, size)]
    fraction = down.fraction[:, None, None].astype(np.float64)
    return np.rint((above + fraction * (below - above)).astype(np.float32)).astype(np.uint8)


def _interpolate_rows(image: np.ndarray, rows: Int[np.ndarray, " rows"], across: Taps) -> np.ndarray:
    """Returns rows [rows, columns, 3] in float32, interpolated along their width."""
    chosen = _take(image, rows, 0)
    left, right = (_take(chosen, across.before + step, 1).astype(np.float32) for step in (0, 1))
    return (left + across.fraction[:, None].astype(np.float64) * (right - left)).astype(np.float32)


def _take(image: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    """Returns rows (axis 0) or columns (axis 1) of an image, zeros where it has none."""
    inside = (indices >= 0) & (indices < image.shape[axis])
    taken = image.take(np.where(inside, indices, 0), axis)
    return taken * np.expand_dims(inside, 1 - axis)[..., None]
