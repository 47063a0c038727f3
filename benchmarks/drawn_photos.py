"""A folder of photo files with masks and faces, and its CSV: a few synthetic people, copied under many names."""

from __future__ import annotations

import csv
import io
import itertools
import os
from pathlib import Path

import numpy as np
from PIL import Image

from deskpro_jax.data.schema import SCHEMES, Example
from deskpro_jax.data.synthetic import generate

_COLUMNS = ("path", "split", "identity", "camera", "clothes", "mask", "face", "restored")
_FOLDERS = {"path": ("body", ".jpg"), "mask": ("mask", ".png"), "face": ("face", ".png"), "restored": ("hr", ".jpg")}


def write(folder: Path, images: int) -> Path:
    """Writes a dataset of one's own (docs/datasets.md); of every ten images eight are for training.

    Args:
        folder: an empty folder.
        images: how many, 10 at least.

    Returns:
        The CSV.
    """
    examples = [example for _, example in generate.generate("tiny", 0)]
    clothing = list(SCHEMES["lip"].clothing)
    rows = []
    for number, example in zip(range(images), itertools.cycle(examples)):
        split = {8: "query", 9: "gallery"}.get(number % 10, "train")
        row = {"split": split, "identity": str(number // 10), "camera": str(number % 7 + 1), "clothes": str(number % 3)}
        for column, content in _contents(example, clothing).items():
            place, suffix = _FOLDERS[column]
            name = f"{place}/{number:06d}{suffix}" if content else ""
            if content:
                (folder / place).mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
            row[column] = name
        rows.append(row)
    target = folder / "manifest.csv"
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator=os.linesep)
        writer.writeheader()
        writer.writerows(rows)
    return target


def _contents(example: Example, clothing: list[int]) -> dict[str, bytes | None]:
    mask = None
    if example.parts is not None:
        with Image.open(io.BytesIO(example.parts)) as labels:
            white = np.where(np.isin(np.asarray(labels), clothing), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(white).save(buffer, "PNG")
        mask = buffer.getvalue()
    return {"path": example.body, "mask": mask, "face": example.face, "restored": example.restored_face}
