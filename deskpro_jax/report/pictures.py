"""Images as data URIs, small enough that a page of any dataset stays small."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from deskpro_jax.data.images import decode_image
from deskpro_jax.data.load.dataset import ReIDSplit

WIDTH, HEIGHT = 112, 256  # pixels at most
_QUALITY = 80  # of JPEG
CLOTHING = (230, 159, 0)  # orange of the palette of Okabe and Ito
_OUTLINES = (CLOTHING, (86, 180, 233), (0, 158, 115), (240, 228, 66))  # others of the same palette
_TINT = 0.6


class Picture(NamedTuple):
    """An image on the page: its data URI and its size in pixels, or why it cannot be shown."""

    uri: str
    width: int
    height: int
    problem: str = ""


class Pictures:
    """Makes the pictures of a page and counts them.

    Attributes:
        count: images made so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def photo(self, split: ReIDSplit, index: int) -> Picture:
        """Returns the photo of an image of a split, or what to say in its place."""
        try:
            photo = decode_image(split[index].body)
        except Exception:  # array_record and Pillow's decoders raise many kinds
            return Picture("", WIDTH, HEIGHT, "cannot be read")
        return self.picture(photo)

    def picture(self, image: Image.Image) -> Picture:
        """Returns a picture of an RGB image."""
        small = shrink(image)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=_QUALITY)
        self.count += 1
        text = base64.b64encode(buffer.getvalue()).decode()
        return Picture(f"data:image/jpeg;base64,{text}", small.width, small.height)


def shrink(image: Image.Image) -> Image.Image:
    """Returns an image that is no larger than pictures are."""
    scale = min(1.0, WIDTH / image.width, HEIGHT / image.height)
    if scale == 1.0:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def tinted(photo: Image.Image, not_clothing: np.ndarray) -> Image.Image:
    """Returns a photo in grey with its clothing in orange.

    Args:
        photo: RGB.
        not_clothing: [height, width] of any size, 0 where there is clothing.
    """
    mask = Image.fromarray((not_clothing == 0).astype(np.uint8) * 255).resize(photo.size, Image.Resampling.NEAREST)
    grey = photo.convert("L").convert("RGB")
    orange = Image.blend(grey, Image.new("RGB", photo.size, CLOTHING), _TINT)
    return Image.composite(orange, grey, mask)


def outlined(photo: Image.Image, boxes: np.ndarray) -> Image.Image:
    """Returns a photo in grey with regions outlined, each in a colour of its own.

    Args:
        photo: RGB.
        boxes: [regions, 4] top, left, bottom and right as fractions of height and width; parts beyond the photo are
            drawn along its border.
    """
    small = shrink(photo).convert("L").convert("RGB")
    draw = ImageDraw.Draw(small)
    inset = 2 * np.arange(len(boxes))[:, None] % 8  # so that outlines along one border lie beside one another
    highest = np.array([small.height, small.width] * 2) - 1
    corners = np.clip(np.round(boxes * highest), inset, highest - inset).astype(int)
    for i, (top, left, bottom, right) in enumerate(corners.tolist()):
        corners_of_box = [(left, top), (max(left, right), max(top, bottom))]
        draw.rectangle(corners_of_box, outline=_OUTLINES[i % len(_OUTLINES)], width=2)
    return small


def overlaid(photo: Image.Image, values: np.ndarray, low: float, high: float, opacity: float = 0.65) -> Image.Image:
    """Returns a map in colours that rise evenly in brightness (viridis), over the photo in grey.

    Args:
        photo: RGB.
        values: [rows, columns] of the map.
        low, high: what is darkest and what is brightest.
        opacity: of the colours.
    """
    import matplotlib

    scaled = np.clip((values.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
    even = np.asarray(Image.fromarray(scaled).resize(photo.size, Image.Resampling.BILINEAR))
    colours = Image.fromarray(matplotlib.colormaps["viridis"](even, bytes=True)[..., :3].copy())
    return Image.blend(photo.convert("L").convert("RGB"), colours, opacity)
