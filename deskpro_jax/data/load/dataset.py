"""Reads built datasets: examples by position, and the columns (identity, camera, ...) of a whole split at once."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.data.datasets.layouts import LAYOUTS
from deskpro_jax.data.schema import SCHEMES, SPLITS, Example, LabelScheme
from deskpro_jax.errors import InputError, MissingInputError

BUILDER_NAME = "cc_reid"
VERSION = "1.0.0"
NAMES = (
    *("synthetic_tiny", "synthetic_small", "synthetic_full"),
    *("celeb", "celeb_light", "prcc", "ltcc", "vc_clothes", "folder"),
)
COLUMNS = ("image_id", "identity", "camera", "clothes", "has_face", "has_restored_face", "has_mask")


def check_name(name: str) -> None:
    """Raises InputError with the near matches when no dataset is called `name`."""
    known = tuple(dict.fromkeys((*NAMES, *LAYOUTS)))  # a fork adds layouts (deskpro_jax.config.user_modules)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or list(known)
        raise InputError(f"no dataset is called {name!r}; did you mean {' or '.join(near)}? (field data.name)")


def dataset_path(name: str, data_dir: str | Path) -> Path:
    """Returns the folder that a dataset has once it is built.

    Raises:
      InputError: If no dataset is called `name`.
    """
    check_name(name)
    return Path(data_dir).expanduser() / BUILDER_NAME / name / VERSION


class Records:
    """Examples of one split by position; can be pickled, and read from several threads.

    Args:
      folder: Folder that holds the array_record files.
      split: Name of the split.

    Raises:
      MissingInputError: If files of the split are missing.
      InputError: If one of the files is not a complete array_record file.
    """

    def __init__(self, folder: Path, split: str) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self.split = split
        files = sorted(folder.glob(f"{BUILDER_NAME}-{split}.array_record-*"))
        wanted = {match[1] for file in files if (match := re.search(r"-of-(\d+)$", file.name))}
        if len(wanted) != 1 or len(files) != int(next(iter(wanted))):
            raise MissingInputError(
                f"{folder} has {len(files)} files of split {split!r} ({', '.join(wanted) or 'some'} expected): "
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
        """Returns which record of which file an example is."""
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
            return int(feature[name].int64_list.value[0])

        return Example(
            image_id=feature["image_id"].bytes_list.value[0].decode(),
            body=feature["body"].bytes_list.value[0],
            parts=optional("parts"),
            face=optional("face"),
            restored_face=optional("restored_face"),
            identity=integer("identity"),
            camera=integer("camera"),
            clothes=integer("clothes"),
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[position] for position in range(len(self)))


def columns(examples: Iterable[Example]) -> dict[str, np.ndarray]:
    """Returns the columns of a split, each [images] in the order of `examples`."""
    rows = []
    for e in examples:
        present = [content is not None for content in (e.face, e.restored_face, e.parts)]
        rows.append((e.image_id, e.identity, e.camera, e.clothes, *present))
    types: tuple[Any, ...] = (np.str_, np.int64, np.int64, np.int64, np.bool_, np.bool_, np.bool_)
    by_column = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
    return {name: np.array(values, dtype=kind) for name, kind, values in zip(COLUMNS, types, by_column, strict=True)}


def write_columns(folder: Path, split: str, values: dict[str, np.ndarray]) -> None:
    """Writes the columns of a split beside its records, whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".npz", delete=False) as file:
        np.savez(file, **values)  # type: ignore[arg-type]
    os.chmod(file.name, 0o644)
    os.replace(file.name, folder / f"columns-{split}.npz")


def _read_columns(folder: Path, split: str, records: Records) -> dict[str, np.ndarray]:
    """Reads the columns, or collects them again from the records where the file is missing or of another length."""
    file = folder / f"columns-{split}.npz"
    if file.exists():
        with np.load(file) as stored:
            values = {name: stored[name] for name in COLUMNS}
        if all(len(value) == len(records) for value in values.values()):
            return values
    values = columns(records)
    if os.access(folder, os.W_OK):
        write_columns(folder, split, values)
    return values


@dataclasses.dataclass(frozen=True, eq=False)
class ReIDSplit:
    """A split, or a part of one: columns in memory, images read when asked for.

    Attributes:
      name: Dataset, one of `NAMES`.
      split: Split the images come from.
      image_id: [images] names.
      identity: [images] int64, the dataset's own numbers.
      camera: [images] int64.
      clothes: [images] int64, -1 where unknown.
      has_face: [images] bool, whether there is a face as photographed.
      has_restored_face: [images] bool.
      has_mask: [images] bool, whether there is a part-label map.
      metadata: What the dataset says about itself.
      records: Where the images are read from.
      positions: [images] int64, position of each image in `records`.
    """

    name: str
    split: str
    image_id: list[str]
    identity: np.ndarray
    camera: np.ndarray
    clothes: np.ndarray
    has_face: np.ndarray
    has_restored_face: np.ndarray
    has_mask: np.ndarray
    metadata: dict[str, Any]
    records: Sequence[Example] | Records
    positions: np.ndarray

    @property
    def scheme(self) -> LabelScheme:
        """The numbering of the part labels."""
        return SCHEMES[self.metadata["label_scheme"]]

    @property
    def clothing(self) -> tuple[int, ...]:
        """The part labels that are clothing, as the dataset says."""
        return tuple(self.metadata["clothing"])

    def __len__(self) -> int:
        return len(self.positions)

    def where(self, index: int) -> str:
        """Returns where an image is kept: its position in the split, and the file of its record."""
        position = int(self.positions[index])
        file = f", {self.records.where(position)}" if isinstance(self.records, Records) else ""
        return f"image {position} of the split{file}"

    def __getitem__(self, index: int) -> Example:
        return self.records[int(self.positions[index])]


def load(name: str, data_dir: str | Path, split: str) -> ReIDSplit:
    """Opens one split of a built dataset.

    Args:
      name: One of `NAMES`.
      data_dir: Folder the dataset was built into.
      split: "train", "query" or "gallery".

    Returns:
      The split; no image is read yet.

    Raises:
      InputError: If the name or the split is unknown or a file is damaged.
      MissingInputError: If the dataset is not there.
    """
    folder = dataset_path(name, data_dir)
    if split not in SPLITS:
        raise InputError(f"split {split!r} of dataset {name} is unknown; choose one of {', '.join(SPLITS)}")
    if not (folder / "dataset_info.json").exists():
        raise MissingInputError(f"dataset {name} is not in {folder}: build it first, or correct data.data_dir")
    metadata = json.loads((folder / "metadata.json").read_text())
    records = Records(folder, split)
    values = _read_columns(folder, split, records)
    image_id = values.pop("image_id").tolist()
    return ReIDSplit(name, split, image_id, **values, metadata=metadata, records=records,
                     positions=np.arange(len(records)))  # fmt: skip


def subset(split: ReIDSplit, indices: np.ndarray | Sequence[int]) -> ReIDSplit:
    """Returns the images of a split at `indices` ([n] integers or [images] bool), in that order."""
    chosen = np.asarray(indices)
    chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
    arrays = ("identity", "camera", "clothes", "has_face", "has_restored_face", "has_mask", "positions")
    return dataclasses.replace(
        split,
        image_id=[split.image_id[index] for index in chosen],
        **{name: getattr(split, name)[chosen] for name in arrays},
    )


def usable(split: ReIDSplit, require_face: bool, require_mask: bool) -> ReIDSplit:
    """Returns the images that have both faces and a mask, as far as they are required.

    Raises:
      InputError: If no image is left.
    """
    keep = np.ones(len(split), bool)
    if require_face:
        keep &= split.has_face & split.has_restored_face
    if require_mask:
        keep &= split.has_mask
    if not keep.any():
        raise InputError(
            f"no image of {split.name}/{split.split} has what data.require_face={require_face} and "
            f"data.require_mask={require_mask} ask for: add the faces or masks, or set the fields to False"
        )
    return split if keep.all() else subset(split, keep)


def hold_out(split: ReIDSplit, count: int, seed: int) -> tuple[ReIDSplit, ReIDSplit, ReIDSplit]:
    """Takes whole identities out of a training split, for validation.

    Args:
      split: The training split.
      count: Number of identities to take out; only those with two images or more are taken.
      seed: Decides which, and which of their images are queries (a third, at least one).

    Returns:
      What is left for training, the validation query, the validation gallery.

    Raises:
      InputError: If `count` is not between 1 and the identities that can be taken, leaving one to train on.
    """
    values, sizes = np.unique(split.identity, return_counts=True)
    able = values[sizes >= 2]
    if not 1 <= count <= min(len(able), len(values) - 1):
        raise InputError(
            f"data.validation_identities is {count}, expected 1 to {min(len(able), len(values) - 1)}: "
            f"{split.name}/{split.split} has {len(values)} identities, {len(able)} of them with two images or more"
        )
    rng = np.random.default_rng([seed, 0x401D])
    query = np.zeros(len(split), bool)
    held = np.isin(split.identity, rng.choice(able, count, replace=False))
    for identity in np.unique(split.identity[held]):
        members = rng.permutation(np.flatnonzero(split.identity == identity))
        query[members[: max(1, len(members) // 3)]] = True
    return subset(split, ~held), subset(split, query), subset(split, held & ~query)


def train_classes(split: ReIDSplit) -> np.ndarray:
    """Returns the identities of a training split in ascending order; the position is the class of an identity."""
    return np.unique(split.identity)


def class_indices(identity: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns the class [images] int32 of each identity.

    Raises:
      InputError: If an identity is not among `classes`.
    """
    found = np.minimum(np.searchsorted(classes, identity), len(classes) - 1)
    if not np.array_equal(classes[found], identity):
        strange = sorted(set(np.unique(identity).tolist()) - set(classes.tolist()))
        raise InputError(f"identities {strange[:5]} are not among the {len(classes)} classes of the training split")
    return found.astype(np.int32)
