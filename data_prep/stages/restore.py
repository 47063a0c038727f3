"""Stage restore: the person's face as it is in the photo and restored, `face/NAME.png` and `restored_face/NAME.png`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from data_prep.devices import spread
from data_prep.records import Row, StageRecords
from data_prep.restoration.align import align, lanczos
from data_prep.restoration.load import Restorer
from data_prep.restoration.restore import restore
from data_prep.stages.stage import Item, encode_png, output_path
from deskpro_jax.data.images import read_pixels
from deskpro_jax.errors import InputError

NAME = "restore"
FOLDERS = ("face", "restored_face")
LANCZOS = "lanczos"


class RestoreStage:
    """Cuts out faces and restores them; see `stage.Stage`."""

    name = NAME

    def __init__(
        self, restorer: Restorer | None, size: int, records: StageRecords, images: Path, mesh: Mesh, rows: int
    ):
        """Puts the restorer on the devices.

        Args:
            restorer: the network; None enlarges faces with the Lanczos filter instead.
            size: side of the faces in pixels, the restorer's own where there is one.
            records: the output folder.
            images: the folder of the photos.
            mesh: the devices.
            rows: faces of a batch, a multiple of the devices.
        """
        self._size, self._records, self._images, self._rows = size, records, images, rows
        self._network = None
        if restorer is not None:
            run = functools.partial(restore, restorer)
            self._network = spread(lambda variables, batch: run(variables, batch["faces"]), restorer.variables, mesh)

    def load(self, name: str, earlier: Row) -> Item:
        if "failure" in earlier:
            return Item(name, None, None, {"failure": earlier["failure"]})
        if earlier.get("best") is None:
            return Item(name, None, None, {})
        photo = read_pixels(self._images / name)
        landmarks = np.asarray(earlier["landmarks"], np.float32).reshape(5, 2)
        if (size := tuple(earlier["size"])) != photo.shape[1::-1]:  # a large photo is reduced as it is read
            landmarks = landmarks * np.divide(photo.shape[1::-1], size, dtype=np.float32)
        try:
            face = align(photo, landmarks, self._size)
        except InputError:  # landmarks that no face can have
            return Item(name, None, None, {})
        shown = face if self._network is not None else lanczos(photo, landmarks, self._size)
        return Item(name, shown, face, {})

    def rows(self, shape: tuple[int, ...]) -> int:
        return self._rows

    def compute(self, items: Sequence[Item], arrays: np.ndarray) -> Any:
        return arrays if self._network is None else self._network({"faces": arrays})

    def recall(self, item: Item) -> Row | None:
        there = all(output_path(self._records.out, folder, item.name).exists() for folder in FOLDERS)
        return {**item.row, "face": True} if there else None

    def finish(self, item: Item, answer: Any) -> Row:
        for folder, pixels in zip(FOLDERS, (item.note, answer), strict=True):
            path = output_path(self._records.out, folder, item.name)
            self._records.write_file(path, encode_png(np.asarray(pixels)))
        return {**item.row, "face": True}


def settings(restorer: Restorer | None, path: Path | None, size: int, faces: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that decide the results of the stage, for `prepare.json`.

    Args:
        restorer: the network, None for Lanczos.
        path: its file, None for Lanczos.
        size: side of the faces in pixels.
        faces: the settings of stage detect, whose faces are restored.
    """
    return {
        "file": path.name if path else None,
        "checkpoint": restorer.checksum if restorer else None,
        "restored": restorer.name if restorer else LANCZOS,
        "size": size,
        "faces": {name: value for name, value in faces.items() if name != "file"},
    }
