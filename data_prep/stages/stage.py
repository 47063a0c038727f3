"""What a stage is: how it takes a photo, which network it runs, and what it leaves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from data_prep.photos import image_id
from data_prep.records import Row
from deskpro_jax.data.images import ReadPhoto

_PNG_LEVEL = 4  # of zlib: a few percent more bytes than with the default 6, in less than half the time


class Item(NamedTuple):
    """One photo on its way through a stage.

    Attributes:
        name: the photo.
        array: what the network is shown, uint8; None where nothing is to be computed.
        note: what the stage keeps for when the network has answered.
        row: what is known of the photo already.
    """

    name: str
    array: np.ndarray | None
    note: Any
    row: Row


class Stage(Protocol):
    """One stage; `load`, `recall` and `finish` are called from several threads at once."""

    @property
    def name(self) -> str:
        """What the stage is called in flags, records and messages."""

    def load(self, name: str, earlier: Row) -> Item:
        """Prepares a photo for the network.

        Args:
            name: the photo.
            earlier: what the stage before found out about it, empty where there is none.

        Raises:
            UnreadableError: the photo cannot be used.
        """

    def rows(self, shape: tuple[int, ...]) -> int:
        """Returns the number of arrays of a shape in a batch."""

    def compute(self, items: Sequence[Item], arrays: np.ndarray) -> Any:
        """Starts the network on a batch.

        Args:
            items: the photos, at most as many as rows.
            arrays: [rows, ...] uint8: theirs, then zeros.

        Returns:
            A tree of arrays that have the batch as their first axis.
        """

    def recall(self, item: Item) -> Row | None:
        """Returns the row of a photo whose files are all there, None where something is to be computed."""

    def finish(self, item: Item, answer: Any) -> Row:
        """Writes the files of one photo and returns its row; `answer` is the network's, without the batch axis."""


def describe_photo(photo: ReadPhoto) -> Row:
    """Returns the first entries of a photo's row: width and height in pixels, upright, and what is worth knowing."""
    height, width = photo.report.upright_size
    remarks = {"remarks": list(photo.report.remarks)} if photo.report.remarks else {}
    return {"size": [width, height], **remarks}


def output_path(out: Path, folder: str, name: str) -> Path:
    """Returns the path of the PNG file that a stage writes for a photo."""
    return out / folder / f"{image_id(name)}.png"


def encode_png(pixels: np.ndarray) -> bytes:
    """Returns a PNG file of [height, width] labels (mode L) or [height, width, 3] RGB, uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()
