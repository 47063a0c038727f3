"""Turns an opened image of any mode into RGB of 8 bits: transparency over white, large ones reduced, upright."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of one channel
_STRIP = 256  # rows of a large image that are converted at a time, after reduction
_MIN_IS_WHITE, _PHOTOMETRIC, _BITS = 0, 262, 258  # of TIFF
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_transparent(image: Image.Image) -> bool:
    """Returns whether an image has an alpha channel, or a colour that stands for transparency."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def to_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """Returns an image in RGB of 8 bits, what is transparent white; the argument is not changed.

    16 bits are scaled to 8 by their high byte, as Pillow does with 16 bits of several channels.

    Args:
        image: decoded, of a mode with 8 or 16 bits per channel.
        factor: height and width are divided by it, each pixel the mean of a square.
    """
    if factor == 1:
        return _converted(image)
    reduced = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, reduced.height, _STRIP):
        rows = (top * factor, min((top + _STRIP) * factor, image.height))
        strip = _converted(image.crop((0, rows[0], image.width, rows[1])), image)
        reduced.paste(strip.reduce(factor), (0, top))
    return reduced


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Returns an image turned upright by its EXIF orientation, 1 to 8."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _converted(image: Image.Image, whole: Image.Image | None = None) -> Image.Image:
    """Converts an image, or a strip of a whole one, whose file says what its values mean."""
    if image.mode in SIXTEEN_BIT:
        return _from_sixteen_bit(image, whole or image)
    if not is_transparent(image):
        return image.convert("RGB")
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # of 16 bits, where Pillow keeps the high byte of the pixels
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    straight = image.convert("LA") if image.mode == "La" else image  # premultiplied
    drawn = straight.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), drawn).convert("RGB")


def _from_sixteen_bit(image: Image.Image, whole: Image.Image) -> Image.Image:
    values = np.asarray(image)
    tags: Any = getattr(whole, "tag_v2", {})  # of TIFF
    bits = max(8, int(np.max(tags.get(_BITS, 16))))  # 12 bits come in the low ones of 16
    grey = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:  # which Pillow turns round in 8 bits only
        grey = 255 - grey
    key = whole.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = 255
    return Image.fromarray(grey).convert("RGB")
