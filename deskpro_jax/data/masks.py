"""Reads mask files: finds the channel that holds the mask, and decides whether it is a mask or a label map."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageChops, ImageOps

from deskpro_jax.data.image_colours import SIXTEEN_BIT
from deskpro_jax.data.schema import SCHEMES

WHITE_OFF, WHITE_ON = "white-off-clothes", "white-on-clothes"
AUTO = "auto"  # decided from the files
MASK_KINDS = (WHITE_OFF, WHITE_ON, *SCHEMES)  # what users can say that their masks are
MASK_THRESHOLD = 128  # of masks with values up to 255: white from here up

# What the values of a file can mean.
BLACK = "black"  # 0 only: a mask or a label map
NEARLY_BLACK = "nearly black"  # below the threshold: among masks black, in a set of its own labels that were changed
BINARY = "binary"  # 0 and 1, or 1 only: a mask, or a label map with one label
MASK = "mask"
LABELS = "labels"
NEITHER = "neither"

_MOST_PARTS = 30  # that one label map shows
_MOST_LABELS = 64  # numberings of human parts have fewer
VOID = 255  # stands for "no label" in many label maps
_DARK, _BRIGHT = 32, 223  # between them is grey, neither black nor white
_MOST_GREY, _MOST_FLAT_GREY = 0.5, 0.05  # fractions of the pixels of a mask, as of soft edges
_ALIKE = 2  # values of neighbouring pixels that make a flat region
_LOSSY_COLOURS = 24  # values by which the channels of a grey image differ in a lossy file
_CONTRADICTION = 0.01  # fraction of the pixels
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


class MaskFile(NamedTuple):
    """The content of a mask file, upright.

    Attributes:
        values: [height, width] of the channel that holds the mask.
        labels: [height, width], the number stored for each pixel; None where a pixel has several.
        content: BLACK, NEARLY_BLACK, BINARY, MASK, LABELS or NEITHER.
        mode: Pillow's name of the pixel type.
        lossy: whether the format changes values when it is written.
        from_alpha: whether `values` is the alpha channel.
        problem: why it is neither mask nor label map, in words that follow the file's name; "" where it is.
    """

    values: UInt8[np.ndarray, "height width"]
    labels: UInt8[np.ndarray, "height width"] | None
    content: str
    mode: str
    lossy: bool
    from_alpha: bool
    problem: str

    def white(self) -> Bool[np.ndarray, "height width"]:
        """Returns where the mask is white: from `MASK_THRESHOLD` up, or the brighter half where all is below it."""
        lowest, highest = int(self.values.min()), int(self.values.max())
        if highest >= MASK_THRESHOLD:
            return self.values >= MASK_THRESHOLD
        if self.content in (BLACK, NEARLY_BLACK):
            return np.zeros(self.values.shape, bool)
        return self.values >= (lowest + highest + 1) // 2  # 1 and 2 are two values as well


def read_mask(content: bytes, alpha: bool = False) -> MaskFile:
    """Reads a mask or label map.

    A file with an alpha channel holds the mask there unless the channel has one value only, in which case its colours
    hold the mask. Colours of a palette mark a label map, black and white a mask.

    Args:
        content: the bytes of a file that `images.inspect_image` found usable.
        alpha: whether other masks of the set are in the alpha channel, so that one value there means something.
    """
    with Image.open(io.BytesIO(content)) as opened:
        lossy = opened.format in ("JPEG", "MPO", "AVIF") or (opened.format == "WEBP" and b"VP8L" not in content[:64])
        image = ImageOps.exif_transpose(opened)
    mode = image.mode
    if mode == "P" and "transparency" in image.info and (not _is_coloured(image) or _has_many_colours(image)):
        image = image.convert("RGBA")
    if image.mode == "P":
        return _of_palette(image, lossy)
    if image.mode == "1":
        bits = np.asarray(image).astype(np.uint8)
        return MaskFile(bits * np.uint8(255), bits, MASK if bits.any() else BLACK, mode, lossy, False, "")
    if image.mode in SIXTEEN_BIT:
        values = _eight_bit(np.asarray(image))
        return MaskFile(values, values, *_decided(values, lossy, mode))
    if image.mode == "L":
        values = np.asarray(image)
        return MaskFile(values, values, *_decided(values, lossy, mode))
    if image.mode in _ALPHA:
        return _with_alpha(image, lossy, mode, alpha)
    return _of_colours(image.convert("RGB"), lossy, mode)


def classify(values: UInt8[np.ndarray, "height width"], lossy: bool) -> tuple[str, str]:
    """Decides what the values of one channel can mean.

    Args:
        values: of the channel.
        lossy: whether the format changes values when it is written.

    Returns:
        One of the contents above, and the problem if it is NEITHER.
    """
    counts = np.bincount(values.ravel(), minlength=256)
    highest = int(np.flatnonzero(counts)[-1])
    if highest == 0:
        return BLACK, ""
    if lossy and highest < MASK_THRESHOLD:
        return NEARLY_BLACK, ""
    if highest == 1:
        return BINARY, ""
    if highest < _MOST_LABELS:
        return LABELS, ""
    if not lossy and highest == VOID and not counts[_DARK:VOID].any() and np.count_nonzero(counts[1:_DARK]) > 1:
        return LABELS, ""
    grey = counts[_DARK : _BRIGHT + 1].sum() / values.size
    flat = _flat_grey(values) if grey > _MOST_FLAT_GREY else 0.0
    if grey > _MOST_GREY or flat > _MOST_FLAT_GREY:
        return NEITHER, f"is grey, neither black nor white, in {grey:.0%} of its pixels"
    return (MASK if highest >= MASK_THRESHOLD else NEARLY_BLACK), ""


def _decided(values: np.ndarray, lossy: bool, mode: str) -> tuple[str, str, bool, bool, str]:
    """Returns the last fields of a file with one channel."""
    content, problem = classify(values, lossy)
    return content, mode, lossy, False, problem


def _of_colours(colours: Image.Image, lossy: bool, mode: str) -> MaskFile:
    """Reads a mask from an RGB image; it has to be grey."""
    red, green, blue = colours.split()
    values = np.asarray(colours.convert("L"))
    least = _LOSSY_COLOURS if lossy else 0
    if any(np.any(np.asarray(ImageChops.difference(red, other)) > least) for other in (green, blue)):
        return MaskFile(values, None, NEITHER, mode, lossy, False, "has colours")
    content, problem = classify(values, lossy)
    return MaskFile(values, None, content, mode, lossy, False, problem)


def _with_alpha(image: Image.Image, lossy: bool, mode: str, alpha: bool) -> MaskFile:
    """Reads a mask from the alpha channel, or from the colours of an image that is opaque all over."""
    both = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")  # premultiplied
    values = np.asarray(both.getchannel("A"))
    content, problem = classify(values, False)
    of_alpha = MaskFile(values, None, content, mode, lossy, True, problem)
    of_colours = _of_colours(both.convert("RGB"), lossy, mode)
    white, opaque = of_colours.white(), of_alpha.white()
    two_colours = of_colours.content in (MASK, BINARY) and white.any() and not white.all()
    if opaque.all() or not opaque.any():
        return of_alpha if alpha and not two_colours else of_colours
    if two_colours and np.mean(opaque != white) > _CONTRADICTION:
        return of_alpha._replace(
            content=NEITHER, problem="has one mask in its colours and another in its alpha channel"
        )
    return of_alpha


def _of_palette(image: Image.Image, lossy: bool) -> MaskFile:
    """Reads an image with a palette: a label map where a colour is used, or where its greys are no mask."""
    labels = np.asarray(image)
    if _is_coloured(image):
        content, problem = (LABELS, "") if _few_labels(labels) else (NEITHER, "has colours")
        return MaskFile(labels, labels, content, image.mode, lossy, False, problem)
    brightness = _palette(image)[:, 0].astype(np.uint8)[labels]
    content, problem = classify(brightness, lossy)
    if content == NEITHER and classify(labels, lossy)[0] in (LABELS, BINARY):
        return MaskFile(labels, labels, LABELS, image.mode, lossy, False, "")
    return MaskFile(brightness, labels, content, image.mode, lossy, False, problem)


def _palette(image: Image.Image) -> np.ndarray:
    """Returns the [256, 3] RGB colours of a palette, black where it ends sooner."""
    entries = np.asarray(image.getpalette("RGB"), np.int16).reshape(-1, 3)
    return np.pad(entries, ((0, 256 - len(entries)), (0, 0)))


def _is_coloured(image: Image.Image) -> bool:
    """Returns whether any pixel of an image with a palette has a colour other than grey."""
    colours = _palette(image)[np.unique(np.asarray(image))]
    return bool((colours.max(1) != colours.min(1)).any())


def _has_many_colours(image: Image.Image) -> bool:
    """Returns whether an image with a palette shows more colours than a label map has parts, as a photo does."""
    return len(np.unique(np.asarray(image))) > _MOST_PARTS


def _few_labels(labels: np.ndarray) -> bool:
    """Returns whether there are no more labels than in numberings of human parts, but for one that stands for none."""
    return int(labels[labels != VOID].max(initial=0)) < _MOST_LABELS


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """Returns 16-bit values as 8 bits: as they are where they fit, else scaled."""
    fits = int(values.max()) <= 255
    return (values if fits else (values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _flat_grey(values: np.ndarray) -> float:
    """Returns the fraction of pixels in flat regions of grey, which soft edges don't have."""
    inner = values[1:-1, 1:-1].astype(np.int16)
    flat = (inner >= _DARK) & (inner <= _BRIGHT)
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
        neighbour = values[row : row + inner.shape[0], column : column + inner.shape[1]].astype(np.int16)
        flat &= np.abs(inner - neighbour) <= _ALIKE
    return float(flat.sum() / values.size)
