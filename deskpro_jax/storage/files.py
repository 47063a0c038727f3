"""Files and folders written atomically (after a kill or a power cut complete, or as before), and JSON files read."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deskpro_jax.errors import InputError, MissingInputError

_TEMPORARY = re.compile(
    r"\..+\.(?:[0-9a-f]{12}\.tmp"
    r"|(?:json|jsonl|md)\.\d+)"  # as versions before 0.2 called them
)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)


def check_new(*paths: Path) -> None:
    """Checks that files can be written at `paths`, the first of which the user named.

    Raises:
        InputError: one of them exists, or nothing can be created in their folder.
        MissingInputError: their folder does not exist.
    """
    if not paths[0].parent.is_dir():
        raise MissingInputError(f"no folder {paths[0].parent}: make it, or correct --to.")
    for path in paths:
        if path.exists():
            raise InputError(f"{path} already exists: choose another name.")
    check_writable(paths[0].parent, "correct --to, or its permissions")


def check_writable(folder: Path, remedy: str) -> None:
    """Checks that files can be created in a folder, or in the nearest one above it that exists, before long work.

    Args:
        folder: where something is to be written.
        remedy: what to do where that cannot be.

    Raises:
        InputError: nothing can be created there.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    temporary = _temporary(nearest / "check", None)
    try:
        temporary.touch(exist_ok=False)
        temporary.unlink()
    except OSError as error:
        raise InputError(f"{nearest} cannot be written ({error.strerror}): {remedy}.") from error


@contextlib.contextmanager
def atomic_path(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path to write to; when the block ends well, that file is on disk under the name `path`.

    The file is flushed to disk before it is renamed, and the folder after. When the block raises, the temporary file is
    removed and `path` stays as it was.

    Args:
        path: the file to create or replace.
        scratch: folder on the same file system for the temporary file; None takes that of `path`.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    temporary = _temporary(path, scratch)
    try:
        with _named(temporary, path):
            yield temporary
            move(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # what went wrong before says more
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder to fill; when the block ends well, it is on disk under the name `path`.

    Args:
        path: a folder that does not exist or is empty; its parents are made.

    Raises:
        OSError: the disk is full, the parent cannot be written, or `path` was filled meanwhile.
    """
    temporary = _temporary(path, None)
    try:
        with _named(temporary, path):
            temporary.mkdir(parents=True)
            yield temporary
            move(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _named(temporary: Path, path: Path) -> Iterator[None]:
    """Errors of the system that name a temporary file, which the user never gave, name `path` instead."""
    try:
        yield
    except OSError as error:
        if str(error.filename) == str(temporary):
            error.filename = str(path)
        raise


def move(source: Path, target: Path) -> None:
    """Renames a finished file or folder and replaces `target`, with everything flushed to disk before and after.

    Args:
        source: a file, or a folder with all that is below it.
        target: its new name on the same file system: another file, an empty folder or nothing.

    Raises:
        OSError: something cannot be flushed or renamed.
    """
    if source.is_dir():
        for path in source.rglob("*"):
            sync(path)
    sync(source)
    source.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Flushes a file, or the list of names of a folder, to disk.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:  # network file systems that cannot flush a folder keep its names themselves
        if not (path.is_dir() and error.errno in _NO_FOLDER_SYNC):
            raise


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Writes several files; none is renamed before all are complete.

    Args:
        contents: the content of each file, in the order of renaming: a file that explains another comes before it.
    """
    with contextlib.ExitStack() as stack:
        temporaries = {path: stack.enter_context(atomic_path(path)) for path in reversed(list(contents))}
        for path, content in contents.items():
            temporaries[path].write_bytes(content)


def write_bytes(path: Path, content: bytes, scratch: Path | None = None) -> None:
    """Writes a file atomically; `scratch` is that of `atomic_path`."""
    with atomic_path(path, scratch) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a text atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, indented and with the keys in the given order."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(
    path: Path, remedy: str = "restore it, or move it away", error: type[Exception] = InputError
) -> dict[str, Any] | None:
    """Returns the content of a JSON file, None where there is no file.

    Args:
        path: the file; holds one object.
        remedy: what to do when it is damaged.
        error: the exception that says so.

    Raises:
        InputError: it does not hold a JSON object; or the given exception.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as reason:
        raise error(f"{path} is damaged; expected a JSON object ({reason}): {remedy}.") from reason
    if not isinstance(content, dict):
        raise error(f"{path} is damaged; expected a JSON object, found a {type(content).__name__}: {remedy}.")
    return content


def require_json(
    path: Path, remedy: str = "restore it, or move it away", error: type[Exception] = InputError
) -> dict[str, Any]:
    """Returns the content of a JSON file that must exist; the arguments are those of `read_json`.

    Raises:
        MissingInputError: there is no file.
        InputError: it does not hold a JSON object; or the given exception.
    """
    content = read_json(path, remedy, error)
    if content is None:
        raise MissingInputError(f"no file {path}: {remedy}.")
    return content


def is_temporary(path: Path) -> bool:
    """Returns whether `path` has the name of a temporary file, which only a killed process leaves behind."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_temporaries(folder: Path) -> None:
    """Removes the temporary files that killed processes left in a folder in which nothing else is at work."""
    for path in folder.glob(".*"):
        if is_temporary(path):
            path.unlink(missing_ok=True)


def _temporary(path: Path, scratch: Path | None) -> Path:
    # Random, for threads and machines that write the same file; cut, for names near the limit of 255 bytes.
    return (path.parent if scratch is None else scratch) / f".{path.name[:40]}.{uuid.uuid4().hex[:12]}.tmp"
