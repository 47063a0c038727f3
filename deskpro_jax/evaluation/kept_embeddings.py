"""Query and gallery embeddings of the last evaluation, kept in the workdir: the report reads them.

`embeddings/query.npy` and `gallery.npy` hold a float32 row per image in the order of the split, `embeddings.json` says
what they were computed from. It is written last and removed first, so that it never describes other arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.errors import InputError, RunError
from deskpro_jax.evaluation.similarity import Similarity
from deskpro_jax.models.checksum import checksum_of
from deskpro_jax.storage.files import atomic_path, read_json, write_json

FOLDER = "embeddings"
_RECORD = "embeddings.json"
_SPLITS = ("query", "gallery")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Everything that decides the numbers of embeddings.

    Attributes:
        dataset: name of the dataset.
        splits: of query and gallery each: number of images, and checksum of the split's records.
        networks: checksum of the networks' variables.
        settings: flip, dtype, the images that the networks read and their sizes.
    """

    dataset: str
    splits: dict[str, dict[str, Any]]
    networks: str
    settings: dict[str, Any]


def origin_of(
    dataset: str,
    splits: Sequence[ReIDSplit],
    variables: Sequence[Mapping[str, Any]],
    *,
    images: Iterable[str],
    sizes: Mapping[str, Sequence[int]],
    flip: bool,
    dtype: str,
    distance: str = "cosine",
) -> Origin:
    """Returns the origin of embeddings of query and gallery.

    Args:
        dataset: name of the dataset.
        splits: query and gallery.
        variables: of each network.
        images: fields of a batch that the networks read.
        sizes: name of a size in `config.data` -> height and width.
        flip: whether the features of the mirrored image are added.
        dtype: of the computation.
        distance: `eval.distance`, which decides whether parts have unit length.
    """
    described = {
        name: {"images": len(split), "checksum": split.metadata.get("checksums", {}).get(name)}
        for name, split in zip(_SPLITS, splits, strict=True)
    }
    settings: dict[str, Any] = {"flip": bool(flip), "dtype": str(dtype), "images": sorted(set(images))}
    if distance != "cosine":  # not named otherwise: what earlier versions kept stays valid
        settings["distance"] = distance
    return Origin(
        dataset, described, checksum_of(variables), settings | {name: list(size) for name, size in sizes.items()}
    )


def keep(
    workdir: Path,
    embeddings: Sequence[np.ndarray],
    origin: Origin,
    similarity: Similarity,
    steps: Mapping[str, Any],
) -> None:
    """Writes the embeddings of an evaluation, in place of those of the one before.

    Args:
        workdir: the run's folder.
        embeddings: of query and gallery, [images, dimension] each.
        origin: what they were computed from.
        similarity: their streams, parts and rule for missing faces.
        steps: phase -> step of its checkpoint.

    Raises:
        RunError: an embedding is not finite; nothing is written.
    """
    for name, rows in zip(_SPLITS, embeddings, strict=True):
        if not (finite := np.isfinite(rows).all(axis=1)).all():
            raise RunError(
                f"the networks give NaN or infinity for {int((~finite).sum())} {name} images, the first of them number"
                f" {int(np.argmin(finite))}: compute in float32 (model.dtype), or evaluate another checkpoint."
            )
    folder = workdir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RECORD).unlink(missing_ok=True)
    for name, rows in zip(_SPLITS, embeddings, strict=True):
        _save(folder / f"{name}.npy", np.asarray(rows, np.float32))
    write_json(folder / _RECORD, dataclasses.asdict(origin) | dataclasses.asdict(similarity) | {"steps": dict(steps)})


def read(workdir: Path, origin: Origin) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads the kept embeddings of query and gallery.

    Args:
        workdir: the run's folder.
        origin: what the embeddings have to be computed from.

    Returns:
        [images, dimension] float32 of query and gallery; None where none are kept, where they have another origin, or
        where the files are damaged.
    """
    folder = workdir / FOLDER
    try:
        record = read_json(folder / _RECORD) or {}
        if any(record.get(name) != value for name, value in dataclasses.asdict(origin).items()):
            return None
        dimension = sum(stream["count"] * stream["dim"] for stream in record["streams"])
        query, gallery = (np.load(folder / f"{name}.npy") for name in _SPLITS)
    except (InputError, OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    for name, rows in zip(_SPLITS, (query, gallery), strict=True):
        if rows.shape != (origin.splits[name]["images"], dimension) or rows.dtype != np.float32:
            return None
    return query, gallery


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
