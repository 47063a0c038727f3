"""Lists the photos of a folder and their names in the output."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from deskpro_jax.data.photo_names import (
    SUFFIXES,
    count_others,
    files_below_folder,
    is_photo_name,
    normalised_stem,
    passed_over,
)
from deskpro_jax.errors import InputError, MissingInputError


def find_photos(root: Path) -> list[str]:
    """Lists the photos below a folder, links to folders followed; hidden files and folders are left out.

    Args:
        root: the folder.

    Returns:
        Paths relative to `root` with forward slashes and their suffix, in the order of the names.

    Raises:
        MissingInputError: there is no such folder.
        InputError: it holds no photo, or two whose output would have the same name.
    """
    if not root.is_dir():
        raise MissingInputError(f"no folder at {root}: correct --images.")
    names = sorted(name for name in files_below_folder(root) if is_photo_name(name))
    if not names:
        others = describe_others(root)
        raise InputError(
            f"{root} holds no photo: expected files ending in {', '.join(SUFFIXES)}, at any depth"
            f"{others and f'; {others}'}."
        )
    _check_names(root, names)
    return names


def describe_others(root: Path) -> str:
    """Returns a line on the files below a folder that are not taken for photos, "" where there are none."""
    return passed_over(count_others(files_below_folder(root)))


def image_id(name: str) -> str:
    """Returns a photo's name in the output: its path without the suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def _check_names(root: Path, names: Iterable[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(normalised_stem(name), name)
        if other != name:
            raise InputError(
                f"{root / other} and {root / name} differ only in their suffix, so their output would have the same "
                "name: rename or remove one."
            )
