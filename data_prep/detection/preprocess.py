"""Puts enlarged photos on canvases of equal shape, and normalises them as RetinaFace wants them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from data_prep.detection.model import STRIDES
from deskpro_jax.errors import InputError

MEAN_BGR = (104.0, 117.0, 123.0)
MEAN_RGB = (123, 117, 104)
FACTORS = (1, 2, 3, 4)
FULL_HEIGHT = 512  # pixels that a person should have for its face to be found: some 60 of them are the face
ASPECT = 2  # of a person, height to width: a photo that is wider shows only a part of one


def choose_factor(height: int, width: int) -> int:
    """Returns by how much a person crop is enlarged before detection, 1 to 4.

    The smallest of `FACTORS` after which a person that fills the crop is `FULL_HEIGHT` pixels tall: 4 for 128x64, 2 for
    256x128, 1 for 512x256. Where the crop is wider than a person, its width counts: a portrait's face is large already.

    Args:
        height, width: of the photo in pixels.
    """
    person = max(height, ASPECT * width)
    return next((factor for factor in FACTORS if factor * person >= FULL_HEIGHT), FACTORS[-1])


def canvas_size(height: int, width: int, factor: int, multiple: int = STRIDES[-1]) -> tuple[int, int]:
    """Returns height and width of the smallest canvas for an enlarged photo, both multiples of `multiple`.

    Args:
        height, width: of the photo in pixels.
        factor: by how much it is enlarged.
        multiple: pixels; larger ones make fewer shapes to compile for.
    """
    return -(-height * factor // multiple) * multiple, -(-width * factor // multiple) * multiple


def enlarge(
    image: UInt8[np.ndarray, "height width 3"],
    factor: int | None = None,
    canvas: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Enlarges a photo (bilinear) and puts it into the top left corner of a canvas.

    A point (x, y) of the photo is at (factor * x, factor * y) of the canvas, in pixels from the left and top edges.

    Args:
        image: RGB.
        factor: by how much, a whole number; `choose_factor` of its size by default.
        canvas: height and width in pixels; `canvas_size` by default. What the photo leaves of it has the colour that
            the network sees as zero.

    Returns:
        RGB canvas.

    Raises:
        InputError: the photo is none, the factor is not positive, or the enlarged photo is larger than the canvas.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"a photo is {image.dtype} {image.shape}; expected RGB uint8 [height, width, 3].")
    height, width = image.shape[:2]
    factor = choose_factor(height, width) if factor is None else factor
    if factor < 1:
        raise InputError(f"the factor to enlarge photos by is {factor}; expected 1 or more.")
    rows, columns = canvas or canvas_size(height, width, factor)
    if height * factor > rows or width * factor > columns:
        raise InputError(
            f"a photo of {height}x{width} pixels enlarged {factor} times does not fit a canvas of {rows}x{columns}."
        )
    result = np.empty((rows, columns, 3), np.uint8)
    result[:] = MEAN_RGB
    if factor > 1:
        enlarged = Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.BILINEAR)
        image = np.asarray(enlarged)
    result[: height * factor, : width * factor] = image
    return result


def normalise(images: UInt8[Array, "batch height width 3"]) -> Float[Array, "batch height width 3"]:
    """Returns RGB images as the network's input: BGR less the mean colour, not scaled."""
    return images[..., ::-1].astype(jnp.float32) - jnp.asarray(MEAN_BGR, jnp.float32)
