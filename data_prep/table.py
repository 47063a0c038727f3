"""The table of an output folder: one row a photo, written from the stages' records chunk by chunk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from data_prep.photos import image_id
from data_prep.records import Row, StageRecords
from data_prep.settings import STAGES, read_settings
from deskpro_jax.data.image_report import Remarks
from deskpro_jax.errors import InputError, MissingInputError, missing_package
from deskpro_jax.storage.files import atomic_path

if TYPE_CHECKING:
    import pyarrow

TABLE_FILE = "images.parquet"
OK = "ok"
_ROWS = 16384  # of a row group


def require_pyarrow() -> Any:
    """Returns the module pyarrow with its Parquet reader and writer.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("the table of the photos", "prep", error) from error
    return pyarrow


def schema() -> pyarrow.Schema:
    """Returns the columns of `images.parquet`; lengths in pixels of the photo, checksums are SHA-256."""
    pa = require_pyarrow()
    floats = pa.list_(pa.float32())
    return pa.schema(
        [
            ("image", pa.string()),  # path below the photos' folder
            ("image_id", pa.string()),  # the same without suffix: where the outputs are
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("status", pa.string()),  # "ok", or why the photo could not be used
            ("has_parts", pa.bool_()),
            ("has_face", pa.bool_()),
            ("box", floats),  # of the face: x1 y1 x2 y2
            ("score", pa.float32()),
            ("landmarks", floats),  # x y of both eyes, the nose, both corners of the mouth
            ("face_height", pa.float32()),
            ("boxes", pa.list_(floats)),  # all that were found: x1 y1 x2 y2 score
            ("parser", pa.string()),  # checksum; null where the stage has not done the photo
            ("detector", pa.string()),
            ("restorer", pa.string()),  # checksum or "lanczos"
            ("detector_scale", pa.float32()),  # by how much the photo was enlarged before detection
            ("faces_outside_head", pa.int32()),  # where no face is in the head region; null before version 0.2
            ("remarks", pa.list_(pa.string())),  # what is worth knowing of the photo; null before version 0.2
        ]
    )


class TableSummary(NamedTuple):
    """What the table says of all photos.

    Attributes:
        bad: the photos that could not be used, and why.
        remarks: what is worth knowing of the photos.
    """

    bad: list[tuple[str, str]]
    remarks: Remarks


def write_table(records: StageRecords) -> TableSummary:
    """Writes the table of everything that the records hold about the photos that are there.

    Args:
        records: the output folder.

    Returns:
        A summary.

    Raises:
        RunError: a record is damaged.
    """
    pa = require_pyarrow()
    columns, all_remarks = schema(), Remarks()
    bad: list[tuple[str, str]] = []
    with (
        atomic_path(records.out / TABLE_FILE, records.partial) as temporary,
        pa.parquet.ParquetWriter(temporary, columns, compression="zstd") as writer,
    ):
        source = _rows(records)
        while group := list(itertools.islice(source, _ROWS)):
            bad += [(row["image"], row["status"]) for row in group if row["status"] != OK]
            for row in group:
                all_remarks.add(row["image"], row["remarks"])
            values = {name: [row[name] for row in group] for name in columns.names}
            writer.write_table(pa.Table.from_pydict(values, columns))
    return TableSummary(bad, all_remarks)


def _rows(records: StageRecords) -> Iterator[Row]:
    stages = read_settings(records.out)["stages"]
    marks = {stage: settings["checkpoint"] or settings["restored"] for stage, settings in stages.items()}
    score = stages["detect"]["score"] if "detect" in stages else 1.0
    for number, names in enumerate(records.chunks):
        by_stage = {stage: records.read(stage, number) for stage in STAGES}
        for name in names:
            if name in records.present:
                yield _row(name, {stage: rows.get(name) for stage, rows in by_stage.items()}, marks, score)


def _row(name: str, by_stage: dict[str, Row | None], marks: dict[str, str], score: float) -> Row:
    parse, detect, restore = (by_stage[stage] or {} for stage in STAGES)
    failures = [row["failure"] for row in (parse, detect, restore) if "failure" in row]
    size = next((row["size"] for row in (parse, detect, restore) if "size" in row), (None, None))
    boxes, best = detect.get("boxes"), detect.get("best")
    box = None if boxes is None or best is None else boxes[best]
    outside = 0 if box is not None else sum(face[4] >= score for face in boxes or ())
    remarks: list[str] = next((row["remarks"] for row in (parse, detect) if "remarks" in row), [])
    return {
        "image": name,
        "image_id": image_id(name),
        "width": size[0],
        "height": size[1],
        "status": failures[0] if failures else OK,
        "has_parts": parse.get("parts", False),
        "has_face": box is not None,
        "box": None if box is None else box[:4],
        "score": None if box is None else box[4],
        "landmarks": detect.get("landmarks"),
        "face_height": None if box is None else box[3] - box[1],
        "boxes": boxes,
        "parser": marks["parse"] if parse.get("parts") else None,
        "detector": marks["detect"] if boxes is not None else None,
        "restorer": marks["restore"] if restore.get("face") else None,
        "detector_scale": detect.get("scale"),
        "faces_outside_head": outside,
        "remarks": [*remarks, *(["faces_outside_head"] if outside else [])],
    }


class Overview(NamedTuple):
    """The numbers of the whole table, one entry per photo.

    Attributes:
        failed: the photo could not be used.
        parsed, detected, restored: the stage has a result for it; for detection, that there is no face counts as one.
        has_face: a face was found.
        score: of the face, NaN where there is none.
        face_height: in pixels of the photo, NaN where there is no face.
        outside_head: faces were found, none of them in the head region.
    """

    failed: Bool[np.ndarray, " photos"]
    parsed: Bool[np.ndarray, " photos"]
    detected: Bool[np.ndarray, " photos"]
    restored: Bool[np.ndarray, " photos"]
    has_face: Bool[np.ndarray, " photos"]
    score: Float[np.ndarray, " photos"]
    face_height: Float[np.ndarray, " photos"]
    outside_head: Bool[np.ndarray, " photos"] = np.zeros(0, np.bool_)


def read_table(folder: Path) -> pyarrow.Table:
    """Reads the table of an output folder; `overview` and `rows` look into it.

    Raises:
        MissingInputError: the folder has none.
        InputError: the table is damaged, or pyarrow is not installed.
    """
    pa = require_pyarrow()
    path = folder / TABLE_FILE
    if not path.is_file():
        raise MissingInputError(
            f"no {TABLE_FILE} in {folder}: give the folder that data_prep.prepare wrote, once it has finished."
        )
    try:
        return pa.parquet.read_table(path, schema=schema())
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}): run data_prep.prepare again to write it anew.") from error


def overview(table: pyarrow.Table) -> Overview:
    """Returns the numbers of all photos."""

    def column(name: str) -> np.ndarray:
        return np.asarray(table[name].to_numpy())

    def present(name: str) -> np.ndarray:
        return np.asarray(table[name].is_valid().to_numpy())

    return Overview(
        failed=column("status") != OK,
        parsed=present("parser"),
        detected=present("detector"),
        restored=present("restorer"),
        has_face=column("has_face").astype(bool),
        outside_head=np.nan_to_num(column("faces_outside_head")) > 0,
        score=column("score"),
        face_height=column("face_height"),
    )


def rows(table: pyarrow.Table, positions: Sequence[int]) -> list[Row]:
    """Returns some rows in full."""
    return list(table.take(list(positions)).to_pylist())
