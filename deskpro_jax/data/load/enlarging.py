"""Enlarges photos on the device, to the same pixels as Pillow's bilinear filter gives on the host.

Resizing takes most of a loader's time: with this the host only decodes a photo that is smaller than the network's
input, and the training step enlarges it. Pillow resamples in integers, first along the width, then along the height,
and rounds to uint8 after each; so does this.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8

_BITS = 22  # of the fraction of Pillow's weights
_TAPS = 3  # pixels that a pixel of an enlarged image is made of, at most

# What a batch holds beside the pixels of a photo, under its name with these endings: for each row (column) of the
# result the first pixel that it is made of, then the weights of this one and the next two.
ROWS, COLUMNS = "_rows", "_columns"


def taps(length: int, low: float, high: float, size: int) -> Int32[np.ndarray, "size 4"]:
    """Returns the weights with which Pillow enlarges a window to `size` pixels, along one axis.

    Args:
        length: pixels of the image.
        low: where the window starts, in pixels.
        high: where it ends.
        size: pixels of the result.

    Returns:
        For each pixel of the result the first pixel it is made of and the weights of three in a row, which add up to
        about 2^22.

    Raises:
        ValueError: the window has more pixels than the result.
    """
    start, width = float(np.float32(low)), float(np.float32(high) - np.float32(low))  # Pillow keeps the box in float32
    scale = width / size
    if scale > 1:
        raise ValueError(f"a window of {width} pixels is not enlarged to {size}")
    centre = start + (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - 0.5).astype(np.int32), 0)
    last = np.minimum((centre + 1.5).astype(np.int32), length)
    positions = first[:, None] + np.arange(_TAPS)
    weights = np.maximum(1.0 - np.abs(positions - centre[:, None] + 0.5), 0.0) * (positions < last[:, None])
    weights /= (weights[:, 0] + weights[:, 1] + weights[:, 2])[:, None]
    return np.concatenate([first[:, None], (0.5 + weights * (1 << _BITS)).astype(np.int32)], axis=1)


@functools.lru_cache(maxsize=64)
def whole(length: int, size: int) -> Int32[np.ndarray, "size 4"]:
    """Returns `taps` of a whole image; those of an image that has this size already take every pixel as it is."""
    result = taps(length, 0, length, size)
    result.flags.writeable = False
    return result


def enlarge(
    photos: UInt8[Array, "batch height width 3"],
    rows: Int32[Array, "batch height 4"],
    columns: Int32[Array, "batch width 4"],
) -> UInt8[Array, "batch height width 3"]:
    """Enlarges each photo of a batch in its own way.

    Args:
        photos: each in the upper left corner of its field; pixels beyond it are ignored.
        rows: `taps` of the height.
        columns: `taps` of the width.

    Returns:
        The photos in full size.
    """
    return _along(_along(photos, columns, 2), rows, 1)


def _along(photos: Array, taps: Array, axis: int) -> Array:
    def apart(values: Array) -> Array:  # [batch, size] to the shape of the photos
        return jnp.expand_dims(values, tuple(i for i in range(1, photos.ndim) if i != axis))

    total: Array = jnp.full((), 1 << (_BITS - 1), jnp.int32)
    for tap in range(_TAPS):
        # Beyond the edge the weight is 0.
        pixels = jnp.take_along_axis(photos, apart(taps[..., 0] + tap), axis, mode="clip")
        total = total + pixels.astype(jnp.int32) * apart(taps[..., 1 + tap])
    return jnp.clip(total >> _BITS, 0, 255).astype(jnp.uint8)


def placed(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns a batch with all photos in full size, and without what that takes; any other batch as it is."""
    small = [name for name in batch if name + ROWS in batch]
    beside = {name + ending for name in small for ending in (ROWS, COLUMNS)}
    full = {name: enlarge(batch[name], batch[name + ROWS], batch[name + COLUMNS]) for name in small}
    return {name: value for name, value in batch.items() if name not in beside} | full
