"""Measures clothing masks, and judges a set of them: how much is clothing, and whether masks are upside down."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deskpro_jax.data.masks import WHITE_OFF, WHITE_ON

_HEAD = (0.03, 0.13, 0.4, 0.6)  # top, bottom, left, right of where heads are in photos of one person, as fractions
_CORNERS = (0.08, 0.12)  # height and width of the upper corners, where the background is, as fractions
_SHAPE_TOLERANCE = 0.05  # fraction by which a mask may be wider or narrower than its photo
_DIGITS = 4  # of fractions that are kept


class MaskMeasure(NamedTuple):
    """What is measured of one mask.

    Attributes:
        clothing: fraction of the image that is clothing.
        head: fraction of the head region that is clothing.
        corners: fraction of the upper corners that is clothing.
        stretched: whether its height and width have another ratio than those of its photo.
    """

    clothing: float
    head: float
    corners: float
    stretched: bool


class MaskSummary(NamedTuple):
    """Statistics of the masks of a dataset.

    Attributes:
        masks: number of masks.
        median: of the fractions of the image that are clothing.
        low: 5th percentile of these fractions.
        high: 95th percentile.
        none: number of masks without clothing.
        all: number of masks that are all clothing.
        head: number of other masks in which most of the head region is clothing.
        corners: number of other masks in which most of the upper corners is clothing.
        stretched: number of masks of another shape than their photo.
    """

    masks: int
    median: float
    low: float
    high: float
    none: int
    all: int
    head: int
    corners: int
    stretched: int

    def describe(self) -> str:
        """Returns the distribution as one line."""
        shape = f"; {self.stretched:,} of another shape than their photo, stretched to it" if self.stretched else ""
        return (
            f"clothing in {self.masks:,} masks: {self.median:.1%} of the image (median; 5th to 95th percentile "
            f"{self.low:.1%} to {self.high:.1%}); {self.none:,} without any, {self.all:,} all clothing{shape}"
        )

    def warnings(self, kind: str, examples: str) -> list[str]:
        """Returns a line for each sign that the masks are not what they are read as.

        Args:
            kind: what they are read as, one of `masks.MASK_KINDS`.
            examples: where to look at examples, as the end of a sentence.
        """
        lines = []
        several = self.masks - self.none - self.all
        if 2 * max(self.head, self.corners) > several:
            if kind in (WHITE_OFF, WHITE_ON):
                opposite = WHITE_ON if kind == WHITE_OFF else WHITE_OFF
                other = f"upside down (--mask-kind {opposite}), or show whole people"
            else:
                other = f"labels of another scheme than {kind} (--mask-kind)"
            lines.append(
                f"most of the head region is clothing in {self.head:,} of {several:,} masks, most of the upper corners "
                f"in {self.corners:,}, read as {kind}: they may be {other}; {examples}"
            )
        if 2 * (self.none + self.all) > self.masks:
            lines.append(
                f"{self.none:,} of {self.masks:,} masks have no clothing and {self.all:,} nothing else, read as "
                f"{kind}: attention learns nothing from them; {examples}"
            )
        return lines


def measure(
    labels: UInt8[np.ndarray, "height width"], clothing: Sequence[int], photo_size: tuple[int, int]
) -> MaskMeasure:
    """Measures a mask.

    Args:
        labels: label of each pixel.
        clothing: the labels that are clothing.
        photo_size: height and width of the photo, upright.
    """
    table = np.zeros(256, bool)
    table[list(clothing)] = True
    worn = table[labels]
    height, width = worn.shape
    top, bottom, left, right = _HEAD
    head = worn[int(top * height) : int(bottom * height) + 1, int(left * width) : int(right * width) + 1]
    rows, columns = (int(part * side) + 1 for part, side in zip(_CORNERS, worn.shape, strict=True))
    corners = (worn[:rows, :columns].mean() + worn[:rows, -columns:].mean()) / 2
    expected = photo_size[1] * height / photo_size[0]
    stretched = abs(width - expected) > max(1.0, _SHAPE_TOLERANCE * expected)
    all_over, of_head, of_corners = (round(float(value), _DIGITS) for value in (worn.mean(), head.mean(), corners))
    return MaskMeasure(all_over, of_head, of_corners, bool(stretched))


def measure_stored(parts: bytes, clothing: Sequence[int], photo_size: tuple[int, int]) -> MaskMeasure:
    """Measures the label map of a stored example, a PNG of mode L."""
    with Image.open(io.BytesIO(parts)) as labels:
        return measure(np.asarray(labels), clothing, photo_size)


def summarise(measures: Iterable[MaskMeasure]) -> MaskSummary | None:
    """Returns the statistics of a set of masks; None if there are none."""
    every = list(measures)
    if not every:
        return None
    clothing, head, corners, stretched = (np.array(values) for values in zip(*every, strict=True))
    low, median, high = np.percentile(clothing, (5, 50, 95)).round(_DIGITS).tolist()
    some = (clothing > 0) & (clothing < 1)
    return MaskSummary(
        masks=len(every),
        median=median,
        low=low,
        high=high,
        none=int((clothing == 0).sum()),
        all=int((clothing == 1).sum()),
        head=int((some & (head > 0.5)).sum()),
        corners=int((some & (corners > 0.5)).sum()),
        stretched=int(stretched.sum()),
    )
