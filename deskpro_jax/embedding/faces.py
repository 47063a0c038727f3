"""Finds the face that belongs to a photo: in a folder that was prepared, or by a detector that is plugged in."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deskpro_jax.data.images import SUFFIXES
from deskpro_jax.embedding.photo_list import Listed, Listing
from deskpro_jax.errors import InputError, MissingInputError

# From photos [height, width, 3] uint8 RGB to the aligned face of each, of any size, None where there is none.
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
        suffixes: Endings to look for, in this order, after the photo's own.
    """

    folder: Path
    suffixes: tuple[str, ...]

    def find(self, image_id: str, photo: str) -> str | None:
        """Returns the path of a photo's face, None where it has none.

        Args:
            image_id: the photo's name.
            photo: its path, whose suffix the face may share.
        """
        own = os.path.splitext(photo)[1]
        for suffix in dict.fromkeys((own, *self.suffixes)):
            path = f"{self.folder}/{image_id}{suffix}"
            if os.path.isfile(path):
                return path
        return None


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
    return FaceFolder(path, SUFFIXES)


def with_faces(photos: Listing, folder: FaceFolder) -> Listing:
    """Returns the list with the face that a folder holds for each photo, unless the list names one."""

    def entries() -> Iterator[Listed]:
        for photo in photos:
            yield photo if photo.face else photo._replace(face=folder.find(photo.image_id, photo.path))

    return Listing(photos.source, entries)


def detector_file(weights: str | Path) -> Path:
    """Returns the path of a detector's weights.

    Raises:
        MissingInputError: there is no such file.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MissingInputError(f"no file at {path}: correct --detector.")
    return path


def open_finder(weights: str | Path) -> FaceFinder:
    """Makes a face finder from a detector's weights by the function that `FINDER` names.

    Args:
        weights: the detector's file.

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
    finder: FaceFinder = make(path)
    return finder
