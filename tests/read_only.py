"""Folders that cannot be written, also for root: an audit hook refuses what would change them, as the system does."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FOLDERS: dict[str, int] = {}  # folder -> error number
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _FOLDERS or (event != "open" and event not in _CHANGES):
        return
    if event == "open" and not (arguments[2] or 0) & _WRITING:
        return
    for path in arguments[: 2 if event == "os.rename" else 1]:
        if isinstance(path, (str, bytes, os.PathLike)):
            name = os.path.abspath(os.fsdecode(path))
            for folder, number in _FOLDERS.items():
                if name == folder or name.startswith(f"{folder}/"):
                    raise OSError(number, os.strerror(number), os.fsdecode(path))


sys.addaudithook(_refuse)  # it cannot be removed; without folders it does nothing


@contextlib.contextmanager
def read_only(folder: Path, number: int = errno.EROFS) -> Iterator[None]:
    """Makes a folder, with all below it, one that this process cannot write; nothing may have changed it at the end."""
    before = _content(folder)
    _FOLDERS[str(folder.absolute())] = number
    try:
        yield
    finally:
        del _FOLDERS[str(folder.absolute())]
    assert _content(folder) == before


def _content(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns size and time of change of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        found[str(path)] = (0 if path.is_dir() else status.st_size, status.st_mtime_ns)
    return found
