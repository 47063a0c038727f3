"""Stage detect: the faces in every photo, and which of them is the person's; all in the records, no files."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from data_prep.detection.detect import detect_raw
from data_prep.detection.load import Detector
from data_prep.detection.person import AUTO, Choice, batch_rows, choose_face, sizes_of, to_canvas
from data_prep.devices import spread
from data_prep.records import Row, StageRecords
from data_prep.stages.stage import Item, describe_photo
from deskpro_jax.data.images import open_photo

NAME = "detect"
FOLDERS: tuple[str, ...] = ()


class DetectStage:
    """Detects faces; see `stage.Stage`."""

    name = NAME

    def __init__(self, detector: Detector, choice: Choice, records: StageRecords, images: Path, mesh: Mesh, rows: int):
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
        photo = open_photo(self._images / name)
        canvas = to_canvas(np.asarray(photo.image), self._choice)
        row = {**describe_photo(photo), "scale": canvas.factor / photo.report.reduction}
        return Item(name, canvas.pixels, canvas.size, row)

    def rows(self, shape: tuple[int, ...]) -> int:
        return batch_rows(shape, self._rows, self._devices)

    def compute(self, items: Sequence[Item], arrays: np.ndarray) -> Any:
        return self._network({"canvases": arrays, "sizes": sizes_of([item.note for item in items], arrays.shape)})

    def recall(self, item: Item) -> Row | None:
        return None

    def finish(self, item: Item, answer: Any) -> Row:
        width, height = item.row["size"]
        found, best = choose_face(answer, item.note, (height, width), self._choice)
        boxes = np.concatenate([found.boxes, found.scores[:, None]], 1)
        row = {**item.row, "boxes": [_shortest(box) for box in boxes]}
        return row if best is None else {**row, "best": best, "landmarks": _shortest(found.landmarks[best])}


def _shortest(values: np.ndarray) -> list[float]:
    """Returns float32 values as the shortest decimals that read back as the same float32."""
    return [float(str(value)) for value in values.astype(np.float32).ravel()]


def settings(detector: Detector, path: Path, choice: Choice) -> dict[str, Any]:
    """Returns the settings that decide the results of the stage, for `prepare.json`."""
    return {
        "file": path.name,
        "checkpoint": detector.checksum,
        "variant": detector.variant,
        **dataclasses.asdict(choice),
        "enlarge": choice.enlarge or AUTO,
    }
