"""Finds the face that belongs to a photo: in a folder that was prepared, or by a detector that is plugged in."""

from __future__ import annotations

import importlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deskpro_jax.data.photo_names import SUFFIXES, files_below_folder, is_photo_name, normalised_stem
from deskpro_jax.embedding.photo_list import Listed, Listing
from deskpro_jax.errors import InputError, MissingInputError

# From photos [height, width, 3] uint8 RGB to the aligned face of each, of any size, None where there is none. It may
# have an attribute `outside_head`, the positions in its last call of photos that show faces, but none where a head is.
FaceFinder = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray | None]]
# Module and function that make a face finder of a detector's weights file. The package does not import it: whoever
# prepares data provides it.
FINDER = "data_prep.face_finder:open_finder"
_PREPARED = "prepare.json"


@dataclass(frozen=True)
class FaceFolder:
    """A folder with one image for each photo that shows a face, under the photo's name.

    Attributes:
        folder: Where the faces are.
        by_name: the faces' paths relative to the folder, by `normalised_stem`; several where only suffixes differ.
    """

    folder: Path
    by_name: Mapping[str, tuple[str, ...]]

    def find(self, image_id: str, photo: str) -> str | None:
        """Returns the path of a photo's face, None where it has none.

        Args:
            image_id: the photo's name.
            photo: its path, whose suffix the face may share.
        """
        names = self.by_name.get(unicodedata.normalize("NFC", image_id), ())
        own = os.path.splitext(photo)[1]
        best = next((name for name in names if name.endswith(own)), names[0] if names else None)
        return None if best is None else f"{self.folder}/{best}"

    def unmatched(self, photos: Iterable[Listed]) -> list[str]:
        """Returns the faces that belong to no photo of a list, by their paths relative to the folder."""
        names = {unicodedata.normalize("NFC", photo.image_id) for photo in photos}
        return sorted(path for name, paths in self.by_name.items() if name not in names for path in paths)


def open_faces(folder: str | Path, field: str) -> FaceFolder:
    """Opens a folder of faces.

    Args:
        folder: what the data preparation wrote (`face/` and `restored_face/` are in it), or any folder whose files have
            the photos' names.
        field: "face" or "restored_face".

    Raises:
        MissingInputError: there is no such folder, or a prepared one lacks the faces that the network reads.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise MissingInputError(f"no folder at {path}: correct --faces.")
    if (path / _PREPARED).is_file() or (path / field).is_dir():
        if not (path / field).is_dir():
            raise MissingInputError(f"{path} has no {field}/, which the network reads: prepare the photos to the end.")
        path = path / field
    by_name: dict[str, tuple[str, ...]] = {}
    for name in filter(is_photo_name, files_below_folder(path)):
        stem = normalised_stem(name)
        by_name[stem] = tuple(sorted((*by_name.get(stem, ()), name), key=_order_of_suffix))
    return FaceFolder(path, by_name)


def _order_of_suffix(name: str) -> tuple[bool, int]:
    order = next(order for order, suffix in enumerate(SUFFIXES) if name.lower().endswith(suffix))
    return not name.endswith(SUFFIXES), order


def with_faces(photos: Listing, folder: FaceFolder) -> Listing:
    """Returns the list with the face that a folder holds for each photo, unless the list names one."""

    def entries() -> Iterator[Listed]:
        for photo in photos:
            yield photo if photo.face else photo._replace(face=folder.find(photo.image_id, photo.path))

    return Listing(photos.source, entries, photos.others)


def detector_file(weights: str | Path) -> Path:
    """Returns the path of a detector's weights.

    Raises:
        MissingInputError: there is no such file.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MissingInputError(f"no file at {path}: correct --detector.")
    return path


def open_finder(weights: str | Path, **region: float) -> FaceFinder:
    """Makes a face finder from a detector's weights by the function that `FINDER` names.

    Args:
        weights: the detector's file.
        region: `head_bottom` and `head_side`, where the person's face is looked for, if not where it is by default.

    Raises:
        MissingInputError: there is no such file.
        InputError: nothing provides the function.
    """
    path = detector_file(weights)
    module, function = FINDER.split(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"looking for faces needs {FINDER}, which is not installed ({error}): prepare the faces before, and give "
            "their folder as --faces."
        ) from error
    finder: FaceFinder = make(path, **region)
    return finder
