"""RetinaFace's anchors, and what its outputs mean relative to them."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from data_prep.detection.model import STRIDES

ANCHOR_SIZES = ((16, 32), (64, 128), (256, 512))  # pixels, of each level
VARIANCES = (0.1, 0.2)  # of centre (and landmark) offsets, and of logarithms of sizes


@functools.lru_cache(maxsize=64)
def anchors(height: int, width: int) -> Float[np.ndarray, "anchors 4"]:
    """Returns the anchors of an image, in the order of the network's outputs.

    Args:
        height, width: of the image in pixels.

    Returns:
        Centre x, centre y, width and height of each, as fractions of the image; read-only.
    """
    levels = []
    for stride, sizes in zip(STRIDES, ANCHOR_SIZES, strict=True):
        rows, columns = -(-height // stride), -(-width // stride)
        y = (np.arange(rows) + 0.5) * stride / height
        x = (np.arange(columns) + 0.5) * stride / width
        size = np.asarray(sizes)
        level = np.empty((rows, columns, len(sizes), 4))
        level[..., 0], level[..., 1] = x[:, None], y[:, None, None]
        level[..., 2], level[..., 3] = size / width, size / height
        levels.append(level.reshape(-1, 4))
    result = np.concatenate(levels).astype(np.float32)
    result.flags.writeable = False
    return result


def decode_boxes(
    offsets: Float[Array, "*batch anchors 4"], priors: Float[Array, "anchors 4"]
) -> Float[Array, "*batch anchors 4"]:
    """Returns boxes as left, top, right, bottom, in the unit of the anchors."""
    centre = priors[:, :2] + offsets[..., :2] * VARIANCES[0] * priors[:, 2:]
    size = priors[:, 2:] * jnp.exp(offsets[..., 2:] * VARIANCES[1])
    corner = centre - size / 2
    return jnp.concatenate([corner, corner + size], -1)


def decode_landmarks(
    offsets: Float[Array, "*batch anchors 10"], priors: Float[Array, "anchors 4"]
) -> Float[Array, "*batch anchors 5 2"]:
    """Returns x and y of the eyes, the nose and the corners of the mouth, left before right as seen in the image."""
    offsets = offsets.reshape(*offsets.shape[:-1], 5, 2)
    return priors[:, None, :2] + offsets * VARIANCES[0] * priors[:, None, 2:]
