"""Files that are written whole or not at all, whenever the process dies."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that the file is whole or absent, whenever the process dies."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text so that the file is whole or absent, whenever the process dies."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the content of a file of the workdir, None where it is not there.

    Raises:
        InputError: it is no JSON object.
    """
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged, it is no JSON object ({error}): restore it or move it away.") from error
