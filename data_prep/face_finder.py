"""Looks for the faces of photos in memory, as `data_prep.prepare` does for those of a folder; plugs into embedding."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from data_prep import devices
from data_prep.detection.detect import Raw, detect_raw
from data_prep.detection.load import Detector, load_detector
from data_prep.detection.person import Choice, PhotoCanvas, batch_rows, canvas_shape, choose_face, sizes_of, to_canvas
from data_prep.restoration.align import FACE_SIZES, align
from deskpro_jax.errors import InputError
from deskpro_jax.runtime import sharding
from deskpro_jax.runtime.forking import refuse_after_fork

Face = UInt8[np.ndarray, "size size 3"]


def open_finder(path: str | Path, **region: float) -> RetinaFaceFinder:
    """Makes a face finder of a RetinaFace file.

    Args:
        path: mobilenet0.25_Final.pth or Resnet50_Final.pth; its names decide the variant.
        region: `head_bottom` and `head_side` of `Choice`, where they are not those of `data_prep.prepare`.

    Raises:
        MissingInputError: there is no such file.
        InputError: it is not a RetinaFace detector, or tensors are missing.
        RunError: the process was forked after jax had started.
    """
    refuse_after_fork("faces cannot be looked for")
    choice = Choice(**region)
    return RetinaFaceFinder(load_detector(path), choice)


class RetinaFaceFinder:
    """Finds and cuts out the face of the person that each photo shows.

    Photos are enlarged, faces chosen and aligned as the stages "detect" and "restore" of `data_prep.prepare` do by
    default, so a photo's face is the one in `face/` of a prepared folder. The network is compiled once for each shape
    of canvas, of which there are few; two batches of canvases at most are in memory.

    Attributes:
        outside_head: positions in the last call of photos that show faces, none of them in the head region.
    """

    def __init__(
        self,
        detector: Detector,
        choice: Choice | None = None,
        *,
        size: int = FACE_SIZES[0],
        rows: int | None = None,
        threads: int = 8,
    ):
        """Puts the detector on all devices of this process.

        Args:
            detector: the network.
            choice: how faces are looked for and chosen; None for the defaults of `data_prep.prepare`.
            size: height and width of the faces in pixels.
            rows: photos of a batch over all devices; large canvases come in smaller batches. None leaves it to the
                kind of device.
            threads: that enlarge photos and cut out faces.
        """
        mesh = Mesh(np.asarray(jax.local_devices()), (sharding.DATA_AXIS,))
        self._choice, self._size, self._threads = choice or Choice(), size, threads
        self._rows, self._devices = devices.batch_rows(mesh, rows), mesh.size
        self.outside_head: set[int] = set()
        run = functools.partial(detect_raw, detector)
        self._network = devices.spread(
            lambda variables, batch: run(variables, batch["canvases"], batch["sizes"]), detector.variables, mesh
        )

    def __call__(self, photos: Sequence[UInt8[np.ndarray, "height width 3"]]) -> list[Face | None]:
        """Finds the faces of photos.

        Args:
            photos: RGB, of any sizes.

        Returns:
            For each the aligned face, None where there is none.
        """
        faces: list[Future[Face | None] | None] = [None] * len(photos)
        self.outside_head = set()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="faces") as pool:
            running: tuple[list[int], list[PhotoCanvas], Any] | None = None
            for batch in self._batches(photos):
                canvases = list(pool.map(lambda i: to_canvas(photos[i], self._choice), batch))
                started = batch, canvases, self._start(canvases)
                if running is not None:  # fetched while the devices are at work on the next
                    self._finish(pool, photos, faces, *running)
                running = started
            if running is not None:
                self._finish(pool, photos, faces, *running)
            return [None if face is None else face.result() for face in faces]

    def _batches(self, photos: Sequence[np.ndarray]) -> list[list[int]]:
        """Groups photos by the shape of their canvas, in order."""
        groups: dict[tuple[int, int], list[int]] = {}
        for i, photo in enumerate(photos):
            groups.setdefault(canvas_shape(photo.shape, self._choice), []).append(i)
        batches = []
        for shape, group in groups.items():
            rows = batch_rows(shape, self._rows, self._devices)
            batches += [group[start : start + rows] for start in range(0, len(group), rows)]
        return batches

    def _start(self, canvases: Sequence[PhotoCanvas]) -> Any:
        shape = canvases[0].pixels.shape
        arrays = np.zeros((batch_rows(shape, self._rows, self._devices), *shape), np.uint8)
        for row, canvas in enumerate(canvases):
            arrays[row] = canvas.pixels
        return self._network({"canvases": arrays, "sizes": sizes_of([c.size for c in canvases], arrays.shape)})

    def _finish(
        self,
        pool: ThreadPoolExecutor,
        photos: Sequence[np.ndarray],
        faces: list[Future[Face | None] | None],
        batch: Sequence[int],
        canvases: Sequence[PhotoCanvas],
        answer: Any,
    ) -> None:
        host = jax.device_get(answer)
        for row, (i, canvas) in enumerate(zip(batch, canvases, strict=True)):
            raw = Raw(*(part[row] for part in host))
            faces[i] = pool.submit(self._cut, i, photos[i], canvas.size, raw)

    def _cut(self, i: int, photo: np.ndarray, size: tuple[int, int], raw: Raw) -> Face | None:
        boxes, best = choose_face(raw, size, photo.shape[:2], self._choice)
        if best is None:
            if (boxes.scores >= self._choice.score).any():
                self.outside_head.add(i)
            return None
        try:
            return align(photo, boxes.landmarks[best], self._size)
        except InputError:  # landmarks that no face can have
            return None
