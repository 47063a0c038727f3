"""The face of the person that a photo shows: how a photo is put before the detector, and which face is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from data_prep.detection.detect import Raw
from data_prep.detection.postprocess import (
    HEAD_BOTTOM,
    HEAD_SIDE,
    MIN_SCORE,
    NMS_THRESHOLD,
    SCORE_THRESHOLD,
    Detections,
    best_face,
    detections,
)
from data_prep.detection.preprocess import canvas_size, choose_factor, enlarge, enlarged_size
from deskpro_jax.errors import InputError

AUTO = "auto"
MAX_ENLARGE = 8
_STEP, _LARGE_STEP = 128, 512  # pixels: canvases come in these steps, so that few shapes are compiled for
_LARGE = 1024  # pixels of a canvas's longer side beyond which they come in the larger steps ...
_MAX_SIDE = 2048  # ... and beyond which a photo is enlarged less than asked for
_FULL_BATCH = 512 * 512  # pixels of a canvas up to which a batch has all its rows


@dataclass(frozen=True)
class Choice:
    """How faces are looked for and chosen.

    Attributes:
        enlarge: by how much photos are enlarged; None picks it for each photo's size.
        box_score: boxes of at most this score are not kept.
        nms: overlap (intersection over union) above which only the better of two boxes is kept.
        score: the person's face has at least this score.
        head_bottom: fraction of the photo's height in which the centre of the person's face lies.
        head_side: fraction of the width that is left out on either side for the same purpose.
    """

    enlarge: float | None = None
    box_score: float = SCORE_THRESHOLD
    nms: float = NMS_THRESHOLD
    score: float = MIN_SCORE
    head_bottom: float = HEAD_BOTTOM
    head_side: float = HEAD_SIDE

    def __post_init__(self) -> None:
        if self.enlarge is not None and not 0.0 < self.enlarge <= MAX_ENLARGE:
            raise InputError(f"--enlarge is {self.enlarge}; expected {AUTO}, or more than 0 and at most {MAX_ENLARGE}.")
        for flag, value in (("box-score", self.box_score), ("nms", self.nms), ("score", self.score)):
            if not 0.0 <= value <= 1.0:
                raise InputError(f"--{flag} is {value}; expected a number from 0 to 1.")
        if not 0.0 < self.head_bottom <= 1.0:
            raise InputError(f"--head-bottom is {self.head_bottom}; expected more than 0 and at most 1.")
        if not 0.0 <= self.head_side < 0.5:
            raise InputError(f"--head-side is {self.head_side}; expected 0 or more and less than 0.5.")


class PhotoCanvas(NamedTuple):
    """A photo as the detector sees it.

    Attributes:
        pixels: [rows, columns, 3] uint8, the enlarged photo in its top left corner.
        size: height and width in pixels of the enlarged photo.
        factor: by how much it was enlarged.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    factor: float


def _plan(height: int, width: int, choice: Choice) -> tuple[float, tuple[int, int], tuple[int, int]]:
    """Returns by how much a photo is enlarged, its size then, and that of its canvas."""
    factor = min(choice.enlarge or choose_factor(height, width), _MAX_SIDE / max(height, width))
    size = enlarged_size(height, width, factor)
    step = _STEP if max(size) <= _LARGE else _LARGE_STEP
    return factor, size, canvas_size(height, width, factor, step)


def canvas_shape(photo: tuple[int, ...], choice: Choice) -> tuple[int, int]:
    """Returns height and width of the canvas of a photo.

    Args:
        photo: its height and width in pixels, whatever else follows them.
        choice: `enlarge` is read.
    """
    return _plan(photo[0], photo[1], choice)[2]


def to_canvas(photo: UInt8[np.ndarray, "height width 3"], choice: Choice) -> PhotoCanvas:
    """Enlarges a photo onto a canvas of one of few shapes.

    Args:
        photo: RGB.
        choice: `enlarge` is read.
    """
    factor, size, canvas = _plan(photo.shape[0], photo.shape[1], choice)
    return PhotoCanvas(enlarge(photo, factor, canvas), size, factor)


def batch_rows(shape: tuple[int, ...], rows: int, devices: int) -> int:
    """Returns the number of canvases in a batch, a multiple of the devices: fewer of the large ones.

    Args:
        shape: of a canvas.
        rows: of a batch of small ones.
        devices: that share a batch.
    """
    fitting = rows * _FULL_BATCH // max(_FULL_BATCH, shape[0] * shape[1])
    return max(1, fitting // devices) * devices


def sizes_of(sizes: list[tuple[int, int]], shape: tuple[int, ...]) -> np.ndarray:
    """Returns height and width of what each canvas of a batch shows, [rows, 2]; rows behind the photos show all.

    Args:
        sizes: of the photos of the batch, enlarged.
        shape: of the batch, [rows, height, width, 3].
    """
    filled = np.full((shape[0], 2), shape[1:3], np.int32)
    filled[: len(sizes)] = sizes
    return filled


def choose_face(
    raw: Raw, size: tuple[int, int], photo: tuple[int, int], choice: Choice
) -> tuple[Detections, int | None]:
    """Finds the faces of a photo, and the one that is the person's.

    Args:
        raw: the detector's output for the photo's canvas, without the batch axis.
        size: height and width of the enlarged photo.
        photo: height and width of the photo.
        choice: how faces are chosen.

    Returns:
        The faces in pixels of the photo, best first, and the position of the person's, None where there is none.
    """
    one = jax.tree.map(lambda part: np.asarray(part)[None], raw)
    (faces,) = detections(one, score_threshold=choice.box_score, nms_threshold=choice.nms)
    (height, width), (rows, columns) = photo, size
    faces = faces.scaled(width / columns, height / rows)
    best = best_face(
        faces,
        height,
        width,
        min_score=choice.score,
        head_bottom=choice.head_bottom,
        head_side=choice.head_side,
    )
    return faces, best
