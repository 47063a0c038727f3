"""Stage parse: a part-label map of every photo, `parts/NAME.png`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from data_prep.devices import spread
from data_prep.parsing.load import Parser
from data_prep.parsing.parse import parse_logits
from data_prep.parsing.postprocess import label_map
from data_prep.parsing.preprocess import crop
from data_prep.records import Row, StageRecords
from data_prep.stages.stage import Item, describe_photo, encode_png, output_path
from deskpro_jax.data.images import open_photo

NAME = "parse"
FOLDERS = ("parts",)


class ParseStage:
    """Parses photos; see `stage.Stage`."""

    name = NAME

    def __init__(self, parser: Parser, records: StageRecords, images: Path, mesh: Mesh, rows: int):
        """Puts the parser on the devices.

        Args:
            parser: the network.
            records: the output folder.
            images: the folder of the photos.
            mesh: the devices.
            rows: photos of a batch, a multiple of the devices.
        """
        self._parser, self._records, self._images, self._rows = parser, records, images, rows
        run = functools.partial(parse_logits, parser)
        self._network = spread(lambda variables, batch: run(variables, batch["crops"]), parser.variables, mesh)

    def load(self, name: str, earlier: Row) -> Item:
        photo = open_photo(self._images / name)
        pixels = np.asarray(photo.image)
        return Item(name, crop(pixels, self._parser.size), pixels.shape[:2], describe_photo(photo))

    def rows(self, shape: tuple[int, ...]) -> int:
        return self._rows

    def compute(self, items: Sequence[Item], arrays: np.ndarray) -> Any:
        return self._network({"crops": arrays})

    def recall(self, item: Item) -> Row | None:
        return {**item.row, "parts": True} if self._path(item.name).exists() else None

    def finish(self, item: Item, answer: Any) -> Row:
        height, width = item.note
        labels = label_map(answer, height, width, self._parser.size)
        self._records.write_file(self._path(item.name), encode_png(labels))
        return {**item.row, "parts": True}

    def _path(self, name: str) -> Path:
        return output_path(self._records.out, FOLDERS[0], name)


def settings(parser: Parser, path: Path) -> dict[str, Any]:
    """Returns the settings that decide the results of the stage, for `prepare.json`."""
    return {
        "file": path.name,
        "checkpoint": parser.checksum,
        "label_scheme": parser.scheme.name,
        "size": parser.size,
    }
