"""The square around a photo that the network sees: where its pixels lie in the photo, and the photo's in it.

The square has the photo's longer side and its centre, and is scaled so that the corner pixels of both fall on each
other. Positions are rounded as OpenCV 5's `warpAffine` rounds them; where an interpolated value is an integer and a
half, which is common when a photo is enlarged, that decides the grey level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int


@dataclass(frozen=True)
class Taps:
    """Bilinear interpolation along one axis.

    Attributes:
        before: index of the neighbour before each pixel; -1 and less, or the last and more, where it lies outside.
        fraction: how far each pixel lies from that neighbour to the next, 0..1.
    """

    before: Int[np.ndarray, " target"]
    fraction: Float32[np.ndarray, " target"]


def steps(height: int, width: int) -> int:
    """Returns the steps between pixels along the longer side of a photo, at least 1."""
    return max(height - 1, width - 1, 1)


def taps_in_photo(extent: int, longest: int, size: int, *, down: bool) -> Taps:
    """Returns the positions of the square's pixels in the photo, along one axis.

    Args:
        extent: the photo's height or width in pixels.
        longest: `steps` of the photo.
        size: pixels along a side of the square.
        down: whether it is the height.
    """
    beside = (size - 1) * (longest - extent + 1) / (2 * longest)
    return _taps(size, (size - 1) / longest, beside, down)


def taps_in_square(extent: int, longest: int, size: int, *, down: bool) -> Taps:
    """Returns the positions of the photo's pixels in the square, along one axis; arguments as for `taps_in_photo`."""
    return _taps(extent, longest / (size - 1), (extent - 1 - longest) / 2, down)


def _taps(count: int, factor: float, offset: float, down: bool) -> Taps:
    """Returns the positions of `count` pixels before the map x -> factor x + offset."""
    inverse = factor * (1.0 / (factor * factor))
    slope, start = np.float32(inverse), np.float32(-inverse * offset)
    # Along the height the product is rounded before the sum is, along the width only the sum.
    pixels: np.ndarray = np.arange(count).astype(np.float32 if down else np.float64)
    positions = (pixels * slope + start).astype(np.float32)
    before = np.floor(positions)
    return Taps(before.astype(np.int64), positions - before)
