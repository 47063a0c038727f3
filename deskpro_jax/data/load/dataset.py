"""Opens the splits of a built dataset, and takes parts of them: columns in memory, images read when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.records import Records, dataset_path, read_columns
from deskpro_jax.data.schema import DISTRACTOR, JUNK, SCHEMES, SPLITS, UNKNOWN_CLOTHES, Example, LabelScheme
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.storage.files import require_json


@dataclasses.dataclass(frozen=True, eq=False)
class ReIDSplit:
    """A split, or a part of one: columns in memory, images read when asked for.

    Attributes:
        name: of the dataset.
        split: split the images come from.
        image_id: [images] names.
        identity: [images] int64, the dataset's own numbers; of query and gallery also `schema.DISTRACTOR` and `JUNK`.
        camera: [images] int64.
        clothes: [images] int64, -1 where unknown.
        has_face: [images] bool, whether there is a face as photographed.
        has_restored_face: [images] bool.
        has_mask: [images] bool, whether there is a part-label map.
        metadata: content of the dataset's metadata.json.
        records: where the images are read from.
        positions: [images] int64, position of each image in `records`.
        tracklet: [images] int64, -1 where unknown.
        scale: [images] int64, -1 where unknown.
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
    tracklet: np.ndarray = None  # type: ignore[assignment]
    scale: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("tracklet", "scale"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full(len(self.positions), -1, np.int64))

    @property
    def scheme(self) -> LabelScheme:
        """The numbering of the part labels."""
        return SCHEMES[self.metadata["label_scheme"]]

    @property
    def clothing(self) -> tuple[int, ...]:
        """The part labels that are clothing, from the dataset's metadata."""
        return tuple(self.metadata["clothing"])

    def __len__(self) -> int:
        return len(self.positions)

    def where(self, index: int) -> str:
        """Returns the position of an image in the split, and the file of its record."""
        position = int(self.positions[index])
        file = f", {self.records.where(position)}" if isinstance(self.records, Records) else ""
        return f"image {position} of the split{file}"

    def __getitem__(self, index: int) -> Example:
        return self.records[int(self.positions[index])]


def load(name: str, data_dir: str | Path, split: str) -> ReIDSplit:
    """Opens one split of a built dataset.

    Args:
        name: of the dataset, as for `find_dataset`.
        data_dir: folder the dataset was built into.
        split: "train", "query" or "gallery".

    Returns:
        The split; no image is read yet.

    Raises:
        InputError: the name or the split is unknown or a file is damaged.
        MissingInputError: the dataset is not built.
    """
    folder = dataset_path(name, data_dir)
    if split not in SPLITS:
        raise InputError(f"split {split!r} of dataset {name} is unknown; choose one of {', '.join(SPLITS)}")
    if not (folder / "dataset_info.json").exists():
        raise MissingInputError(f"dataset {name} is not in {folder}: build it first, or correct data.data_dir")
    metadata = require_json(folder / "metadata.json", "build the dataset again")
    records = Records(folder, split)
    values = read_columns(folder, split, records)
    image_id = values.pop("image_id").tolist()
    return ReIDSplit(find_dataset(name).name, split, image_id, **values, metadata=metadata, records=records,
                     positions=np.arange(len(records)))  # fmt: skip


def subset(split: ReIDSplit, indices: np.ndarray | Sequence[int]) -> ReIDSplit:
    """Returns the images of a split at `indices` ([n] integers or [images] bool), in that order."""
    chosen = np.asarray(indices)
    chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
    labels = ("identity", "camera", "clothes", "tracklet", "scale")
    arrays = (*labels, "has_face", "has_restored_face", "has_mask", "positions")
    return dataclasses.replace(
        split,
        image_id=[split.image_id[index] for index in chosen],
        **{name: getattr(split, name)[chosen] for name in arrays},
    )


def mark_identities(split: ReIDSplit, junk: Sequence[int], distractors: Sequence[int]) -> ReIDSplit:
    """Returns a query or gallery split in which identities that name no person are `JUNK` or `DISTRACTOR`.

    Args:
        split: the split; all of its images stay.
        junk: identities of images that are ignored, as -1 in Market-1501.
        distractors: identities of images that match nobody, as 0 in Market-1501.
    """
    if not junk and not distractors:
        return split
    identity = np.where(np.isin(split.identity, distractors), DISTRACTOR, split.identity)
    return dataclasses.replace(split, identity=np.where(np.isin(split.identity, junk), JUNK, identity))


def usable(split: ReIDSplit, require_face: bool, require_mask: bool) -> ReIDSplit:
    """Returns the images that have both faces and a mask, as far as they are required.

    Raises:
        InputError: no image is left.
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
        split: the training split.
        count: number of identities to take out; only those with two images or more are taken.
        seed: decides which, and which of their images are queries (a third, at least one). Where tracklets are known
            they stay whole, and are counted in place of images.

    Returns:
        What is left for training, the validation query, the validation gallery.

    Raises:
        InputError: `count` is not between 1 and the identities that can be taken, leaving one to train on.
    """
    groups = split.tracklet if (split.tracklet >= 0).all() else np.arange(len(split))
    pairs = np.unique(np.stack([split.identity, groups], axis=1), axis=0)
    values, sizes = np.unique(pairs[:, 0], return_counts=True)
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
        members = rng.permutation(pairs[pairs[:, 0] == identity, 1])
        chosen = members[: max(1, len(members) // 3)]
        query |= (split.identity == identity) & np.isin(groups, chosen)
    return subset(split, ~held), subset(split, query), subset(split, held & ~query)


def train_classes(split: ReIDSplit) -> np.ndarray:
    """Returns the identities of a training split in ascending order; the position is the class of an identity."""
    return np.unique(split.identity)


def clothes_classes(split: ReIDSplit) -> np.ndarray:
    """Returns the outfits of a training split, [outfits, 2] identity and clothes in ascending order.

    The position is the class of an outfit, so that those of one identity are neighbours. Images of unknown clothes
    make no class.
    """
    known = split.clothes > UNKNOWN_CLOTHES
    return np.unique(np.stack([split.identity[known], split.clothes[known]], axis=1), axis=0)


def clothes_indices(identity: np.ndarray, clothes: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the clothes class of images, and which classes are outfits of their identities.

    Args:
        identity: [images] the dataset's own numbers.
        clothes: [images] the dataset's own numbers, negative where unknown.
        classes: [outfits, 2] from `clothes_classes`, with every known outfit of these images.

    Returns:
        [images] int32 class, -1 where unknown; and [images, 2] int32: the first class of the image's identity and the
        one after its last, which are equal where the identity has none.
    """
    ends = [np.searchsorted(classes[:, 0], identity, side) for side in ("left", "right")]
    indices = np.full(len(identity), UNKNOWN_CLOTHES, np.int32)
    for row in np.flatnonzero(clothes > UNKNOWN_CLOTHES):
        first, end = int(ends[0][row]), int(ends[1][row])
        indices[row] = first + np.searchsorted(classes[first:end, 1], clothes[row])
    return indices, np.stack(ends, axis=1).astype(np.int32)


def class_indices(identity: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns the class [images] int32 of each identity.

    Raises:
        InputError: an identity is not among `classes`.
    """
    indices = np.minimum(np.searchsorted(classes, identity), len(classes) - 1)
    if not np.array_equal(classes[indices], identity):
        unknown = sorted(set(np.unique(identity).tolist()) - set(classes.tolist()))
        raise InputError(f"identities {unknown[:5]} are not among the {len(classes)} classes of the training split")
    return indices.astype(np.int32)
