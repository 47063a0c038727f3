"""Checksums: of one file, and of a checkpoint folder (written once it is complete, compared before it is read)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from deskpro_jax.storage import files

CHECKSUM_FILE = "checksums.json"
_SHOWN = 3  # damaged files that a message names before it counts the rest


def _files(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.rglob("*") if p.is_file() and not p.name.startswith((CHECKSUM_FILE, "." + CHECKSUM_FILE))
    )


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path) -> None:
    """Writes `checksums.json` into `folder`: size in bytes and SHA-256 of every file below it.

    Everything below `folder` is flushed to disk first.

    Args:
        folder: a complete checkpoint folder.

    Raises:
        OSError: a file vanished or cannot be read, or the folder cannot be written.
    """
    files.remove_temporaries(folder)
    for path in (*_files(folder), *(p for p in folder.rglob("*") if p.is_dir()), folder):
        files.sync(path)
    entries = {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in _files(folder)
    }
    files.write_text(folder / CHECKSUM_FILE, json.dumps({"files": entries}, indent=1))


def has_checksums(folder: Path) -> bool:
    """Returns whether `folder` holds a checksum file."""
    return (folder / CHECKSUM_FILE).is_file()


def find_damage(folder: Path, chosen: Callable[[str], bool] = lambda name: True) -> str:
    """Compares a checkpoint folder with its checksum file.

    Args:
        folder: the checkpoint folder of one step.
        chosen: whether a file is compared, by its name relative to the folder.

    Returns:
        The damaged files and how each is damaged; "" when none is, or when there is no checksum file to compare with.
    """
    if not folder.is_dir():
        return "the folder is missing"
    if not has_checksums(folder):
        return "" if _files(folder) else "the folder is empty"
    try:
        entries = json.loads((folder / CHECKSUM_FILE).read_text("utf-8"))["files"]
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        return f"{CHECKSUM_FILE} is unreadable ({type(error).__name__}: {error})"
    problems = []
    for name, (size, known) in expected.items():
        path = folder / name
        if not chosen(name):
            continue
        try:
            if not path.is_file():
                problems.append(f"{name} is missing")
            elif path.stat().st_size != size:
                problems.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
            elif file_sha256(path) != known:
                problems.append(f"{name} differs from its checksum")
        except OSError as error:
            problems.append(f"{name} cannot be read ({error})")
    more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return ", ".join(problems[:_SHOWN]) + more


def set_aside(folder: Path) -> None:
    """Renames a damaged step folder to `damaged_<step>`, replacing an earlier one of that name."""
    aside = folder.with_name(f"damaged_{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.is_dir():
        folder.rename(aside)
