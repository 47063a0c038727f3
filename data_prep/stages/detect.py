"""Stage detect: the faces in every photo, and which of them is the person's; all in the records, no files."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_prep.detection.detect import detect_raw
from data_prep.detection.load import Detector
from data_prep.detection.postprocess import (
    HEAD_BOTTOM,
    HEAD_SIDE,
    MIN_SCORE,
    NMS_THRESHOLD,
    SCORE_THRESHOLD,
    best_face,
    detections,
)
from data_prep.detection.preprocess import canvas_size, choose_factor, enlarge, enlarged_size
from data_prep.devices import spread
from data_prep.photos import read_photo
from data_prep.records import Records, Row
from data_prep.stages.stage import Item
from deskpro_jax.errors import InputError

NAME = "detect"
FOLDERS: tuple[str, ...] = ()
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
        head_bottom: share of the photo's height in which the centre of the person's face lies.
        head_side: share of the width that is left out on either side for the same purpose.
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


class DetectStage:
    """Detects faces; see `stage.Stage`."""

    name = NAME

    def __init__(self, detector: Detector, choice: Choice, records: Records, images: Path, mesh: Mesh, rows: int):
        """Puts the detector on the devices.

        Args:
            detector: the network.
            choice: how faces are looked for and chosen.
            records: the output folder.
            images: the folder of the photos.
            mesh: the devices.
            rows: photos of a batch, a multiple of the devices; large canvases come in smaller batches.
        """
        self._choice, self._images, self._rows, self._devices = choice, images, rows, mesh.size
        run = functools.partial(detect_raw, detector)
        self._network = spread(
            lambda variables, batch: run(variables, batch["canvases"], batch["sizes"]), detector.variables, mesh
        )

    def load(self, name: str, earlier: Row) -> Item:
        photo = read_photo(self._images / name)
        height, width = photo.shape[:2]
        factor = min(self._choice.enlarge or choose_factor(height, width), _MAX_SIDE / max(height, width))
        size = enlarged_size(height, width, factor)
        step = _STEP if max(size) <= _LARGE else _LARGE_STEP
        canvas = enlarge(photo, factor, canvas_size(height, width, factor, step))
        return Item(name, canvas, size, {"size": [width, height], "scale": factor})

    def rows(self, shape: tuple[int, ...]) -> int:
        rows = self._rows * _FULL_BATCH // max(_FULL_BATCH, shape[0] * shape[1])
        return max(1, rows // self._devices) * self._devices

    def compute(self, items: Sequence[Item], arrays: np.ndarray) -> Any:
        sizes = np.full((len(arrays), 2), arrays.shape[1:3], np.int32)
        sizes[: len(items)] = [item.note for item in items]
        return self._network({"canvases": arrays, "sizes": sizes})

    def recall(self, item: Item) -> Row | None:
        return None

    def finish(self, item: Item, answer: Any) -> Row:
        raw = jax.tree.map(lambda leaf: leaf[None], answer)
        choice = self._choice
        (found,) = detections(raw, score_threshold=choice.box_score, nms_threshold=choice.nms)
        width, height = item.row["size"]
        rows, columns = item.note
        found = found.scaled(width / columns, height / rows)
        best = best_face(
            found,
            height,
            width,
            min_score=choice.score,
            head_bottom=choice.head_bottom,
            head_side=choice.head_side,
        )
        boxes = np.concatenate([found.boxes, found.scores[:, None]], 1)
        row = {**item.row, "boxes": [_shortest(box) for box in boxes]}
        return row if best is None else {**row, "best": best, "landmarks": _shortest(found.landmarks[best])}


def _shortest(values: np.ndarray) -> list[float]:
    """Returns float32 values as the shortest decimals that read back as the same float32."""
    return [float(str(value)) for value in values.astype(np.float32).ravel()]


def settings(detector: Detector, path: Path, choice: Choice) -> dict[str, Any]:
    """Returns what decides the results of the stage, for `prepare.json`."""
    return {
        "file": path.name,
        "checkpoint": detector.checksum,
        "variant": detector.variant,
        **dataclasses.asdict(choice),
        "enlarge": choice.enlarge or AUTO,
    }
