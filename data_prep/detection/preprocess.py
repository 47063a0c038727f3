"""Puts enlarged photos on canvases of equal shape, and normalises them as RetinaFace wants them."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from data_prep.detection.model import STRIDES
from deskpro_jax.errors import InputError

MEAN_RGB = (123, 117, 104)
MAX_FACTOR = 4
ENOUGH_HEIGHT = 512  # pixels of a standing person at which its face, an eighth to a tenth of them, is surely found
MAX_HEIGHT = 1024  # pixels; faces of taller persons outgrow the largest anchors, and the canvas the memory
ASPECT = 2  # of a standing person, height to width: a photo that is wider shows only a part of one, so larger


def choose_factor(height: int, width: int) -> float:
    """Returns by how much a photo of a person is enlarged before detection.

    The smallest integer up to 4 after which a person that fills the photo is `ENOUGH_HEIGHT` pixels tall: 4 for
    128x64, 2 for 256x128, 1 for 512x256. Where the photo is wider than a standing person its width counts, since the
    face of a portrait is large already. Large photos are reduced, to 1/2, 1/3, ... down to `MAX_HEIGHT`.

    Args:
        height, width: of the photo in pixels.
    """
    person = max(height, ASPECT * width)
    if person > MAX_HEIGHT:
        return 1 / math.ceil(person / MAX_HEIGHT)
    return min(MAX_FACTOR, math.ceil(ENOUGH_HEIGHT / person))


def enlarged_size(height: int, width: int, factor: float) -> tuple[int, int]:
    """Returns height and width in pixels of a photo enlarged by `factor`, rounded to whole pixels."""
    return max(1, round(height * factor)), max(1, round(width * factor))


def canvas_size(height: int, width: int, factor: float, multiple: int = STRIDES[-1]) -> tuple[int, int]:
    """Returns height and width of the smallest canvas for an enlarged photo, both multiples of `multiple`.

    Args:
        height, width: of the photo in pixels.
        factor: by how much it is enlarged.
        multiple: pixels; larger ones make fewer shapes to compile for.
    """
    rows, columns = enlarged_size(height, width, factor)
    return -(-rows // multiple) * multiple, -(-columns // multiple) * multiple


def enlarge(
    image: UInt8[np.ndarray, "height width 3"],
    factor: float | None = None,
    canvas: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Enlarges a photo (bilinear) and puts it into the top left corner of a canvas.

    Coordinates on both start at the photo's left and top edges, so those on the canvas are the photo's times
    `enlarged_size` over the photo's size.

    Args:
        image: RGB.
        factor: by how much; `choose_factor` of its size by default.
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
    if not factor > 0:
        raise InputError(f"the factor to enlarge photos by is {factor}; expected more than 0 (2 to 4 for crops).")
    rows, columns = enlarged_size(height, width, factor)
    size = canvas or canvas_size(height, width, factor)
    if rows > size[0] or columns > size[1]:
        raise InputError(
            f"a photo of {height}x{width} pixels, enlarged by {factor:g}, does not fit a canvas of {size[0]}x{size[1]}:"
            " take a larger canvas or a smaller factor."
        )
    result = np.empty((*size, 3), np.uint8)
    result[:] = MEAN_RGB
    if (rows, columns) != (height, width):
        image = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
    result[:rows, :columns] = image
    return result


def normalise(images: UInt8[Array, "batch height width 3"]) -> Float[Array, "batch height width 3"]:
    """Returns RGB images as the network's input: BGR less the mean colour, not scaled."""
    return images[..., ::-1].astype(jnp.float32) - jnp.asarray(MEAN_RGB[::-1], jnp.float32)
