"""Files that are written whole or not at all, whenever the process dies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from deskpro_jax.errors import InputError, MissingInputError


def check_new(*paths: Path) -> None:
    """Checks that files can be written at `paths`, the first of which the user named.

    Raises:
        InputError: one of them is there.
        MissingInputError: their folder is not.
    """
    if not paths[0].parent.is_dir():
        raise MissingInputError(f"no folder {paths[0].parent}: make it, or correct --to.")
    for path in paths:
        if path.exists():
            raise InputError(f"{path} is there already: give a new name.")


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Writes files under temporary names and renames them when all are complete.

    Args:
        contents: what goes into each file; what goes with a file comes before it, so that it is never missing.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    try:
        for path, content in contents.items():
            temporary[path].write_bytes(content)
        for path, part in temporary.items():
            part.replace(path)
    finally:
        for part in temporary.values():
            part.unlink(missing_ok=True)
