"""Lists the photos of a folder and their names in the output."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from deskpro_jax.data.images import SUFFIXES
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
    names: list[str] = []
    for folder, inner, files in os.walk(root, followlinks=True, onerror=_raise):
        here = Path(folder)
        inner[:] = [name for name in inner if not name.startswith(".") and not _leads_back(root, here / name)]
        below = PurePosixPath(here.relative_to(root).as_posix())
        names += [str(below / name) for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not names:
        raise InputError(f"{root} holds no photo: expected files ending in {', '.join(SUFFIXES)}, at any depth.")
    names.sort()
    _check_names(root, names)
    return names


def _raise(error: OSError) -> None:
    raise error  # os.walk would leave the folder out


def _leads_back(root: Path, folder: Path) -> bool:
    """Returns whether a folder is a link to one that it lies in, so that walking it would never end."""
    if not folder.is_symlink():
        return False
    above = [root, *(root / parent for parent in folder.relative_to(root).parents)]
    return any(folder.samefile(parent) for parent in above)


def image_id(name: str) -> str:
    """Returns a photo's name in the output: its path without the suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def _check_names(root: Path, names: Iterable[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{root}: the name {name!a} is not valid UTF-8: rename the file.") from None
        other = first.setdefault(image_id(name), name)
        if other != name:
            raise InputError(
                f"{root / other} and {root / name} differ only in their suffix, so their output would have the same "
                "name: rename or remove one."
            )
