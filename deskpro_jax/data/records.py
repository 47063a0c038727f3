"""Built datasets on disk: their folder, examples by position, and the columns of a split (identity, camera, ...)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.schema import Example
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.storage.files import atomic_path

BUILDER_NAME = "cc_reid"
_FLAGS = ("has_face", "has_restored_face", "has_mask")
_LATER = ("tracklet", "scale")  # datasets of earlier versions lack them, which means that they are not known
COLUMNS = ("image_id", "identity", "camera", "clothes", *_LATER, *_FLAGS)


def dataset_path(name: str, data_dir: str | Path) -> Path:
    """Returns the folder that a dataset has once it is built: of its versions the newest that is there.

    Args:
        name: of the dataset, as for `find_dataset`.
        data_dir: folder that TFDS datasets are kept in.

    Raises:
        InputError: there is no such dataset.
    """
    spec = find_dataset(name)
    folders = [Path(data_dir).expanduser() / BUILDER_NAME / spec.name / version for version in spec.versions]
    return next((folder for folder in folders if (folder / "dataset_info.json").exists()), folders[0])


class Records:
    """Examples of one split by position; can be pickled, and read from several threads.

    Args:
        folder: folder that holds the array_record files.
        split: name of the split.

    Raises:
        MissingInputError: files of the split are missing.
        InputError: one of the files is not a complete array_record file.
    """

    def __init__(self, folder: Path, split: str) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self.split = split
        files = sorted(folder.glob(f"{BUILDER_NAME}-{split}.array_record-*"))
        counts = {match[1] for file in files if (match := re.search(r"-of-(\d+)$", file.name))}
        if len(counts) != 1 or len(files) != int(next(iter(counts))):
            raise MissingInputError(
                f"{folder} has {len(files)} files of split {split!r} ({', '.join(counts) or 'some'} expected): "
                "delete the folder and build the dataset again"
            )
        self._files = files
        try:
            self._source = ArrayRecordDataSource([str(file) for file in files])
        except (RuntimeError, ValueError) as error:
            raise InputError(f"split {split!r} in {folder} is damaged ({error}): build the dataset again") from error

    def __len__(self) -> int:
        return len(self._source)

    def where(self, position: int) -> str:
        """Returns the file of an example and its record number there."""
        from array_record.python.array_record_module import ArrayRecordReader

        for file in self._files:
            count = ArrayRecordReader(str(file)).num_records()
            if position < count:
                return f"record {position} of {file}"
            position -= count
        return f"a record beyond the end of {self._files[-1]}"

    def __getitem__(self, position: int) -> Example:
        from tensorflow_datasets.proto import tf_example_pb2

        feature = tf_example_pb2.Example.FromString(self._source[position]).features.feature

        def optional(name: str) -> bytes | None:
            values = feature[name].bytes_list.value if name in feature else ()
            return values[0] if values else None

        def integer(name: str) -> int:
            return int(feature[name].int64_list.value[0]) if name not in _LATER or name in feature else -1

        return Example(
            image_id=feature["image_id"].bytes_list.value[0].decode(),
            body=feature["body"].bytes_list.value[0],
            parts=optional("parts"),
            face=optional("face"),
            restored_face=optional("restored_face"),
            identity=integer("identity"),
            camera=integer("camera"),
            clothes=integer("clothes"),
            tracklet=integer("tracklet"),
            scale=integer("scale"),
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[position] for position in range(len(self)))


def columns(examples: Iterable[Example]) -> dict[str, np.ndarray]:
    """Returns the columns of a split, each [images] in the order of `examples`."""
    rows = []
    for e in examples:
        present = [content is not None for content in (e.face, e.restored_face, e.parts)]
        rows.append((e.image_id, e.identity, e.camera, e.clothes, e.tracklet, e.scale, *present))
    types: tuple[Any, ...] = (np.str_, *[np.int64] * (len(COLUMNS) - 1 - len(_FLAGS)), *[np.bool_] * len(_FLAGS))
    by_column = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
    return {name: np.array(values, dtype=kind) for name, kind, values in zip(COLUMNS, types, by_column, strict=True)}


def write_columns(folder: Path, split: str, values: dict[str, np.ndarray]) -> None:
    """Writes the columns of a split beside its records, whole or not at all."""
    with atomic_path(folder / f"columns-{split}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **values)  # type: ignore[arg-type]


def every_column(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns all columns of a split; those that a dataset of an earlier version lacks are -1, not known."""
    unknown = np.full(len(stored["identity"]), -1, np.int64)
    return {name: unknown if name in _LATER and name not in stored else stored[name] for name in COLUMNS}


def read_columns(folder: Path, split: str, records: Records) -> dict[str, np.ndarray]:
    """Reads the columns, or collects them again from the records where the file is missing or of another length."""
    file = folder / f"columns-{split}.npz"
    if file.exists():
        with np.load(file) as stored:
            values = every_column(stored)
        if all(len(value) == len(records) for value in values.values()):
            return values
    values = columns(records)
    with contextlib.suppress(OSError):  # a folder that cannot be written: they are collected again
        write_columns(folder, split, values)
    return values
