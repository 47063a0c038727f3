"""Says what a file or folder is that is given for weights and holds none, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from deskpro_jax.errors import InputError

AGAIN = "fetch the file again"
_TEXT = re.compile(rb"[\t\n\r -~\x80-\xff]*")  # no control characters
_WEIGHTS_NAME = re.compile(rb"[^\s]+\.(pth|pt|ckpt|bin|pkl|safetensors)(\.tar)?", re.IGNORECASE)
_ARCHIVES = (b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


def describe_content(data: bytes) -> str:
    """Returns what bytes are that no weights file starts with, as the end of "FILE ...".

    Args:
        data: the whole file.
    """
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return f"is empty: {AGAIN}"
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not weights (a download that needed a login or a confirmation?): fetch the file itself"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights: run `git lfs pull` where it came from"
    if data.startswith(_ARCHIVES):
        return "is a compressed archive: unpack it first"
    if not data.strip(b"\0"):
        return f"holds nothing but zeros, as an unfinished download does: {AGAIN}"
    if data.startswith(b"\x89HDF"):
        return "is an HDF5 file (Keras?), which is not read here"
    if data.startswith(b"\x93NUMPY"):
        return "is a NumPy array, not weights by name"
    if _TEXT.fullmatch(data[:4096]):
        line = data.strip().splitlines()[0][:60].decode(errors="replace") if data.strip() else ""
        if len(data) < 4096 and _WEIGHTS_NAME.fullmatch(data.strip()):
            return f"is a text file that names a checkpoint, not the weights: give that file ({line})"
        return f"is a text file ({line!r}), not weights: give the file that it describes"
    return f"starts with {data[:8]!r}, which no weights file does"


def refuse_unzipped(folder: Path) -> None:
    """Raises InputError, with what to do, when a folder is the content of a PyTorch file that was unzipped."""
    for inside in (folder, *(path for path in sorted(folder.glob("*")) if path.is_dir())):
        if (inside / "data.pkl").is_file() and (inside / "data").is_dir():
            raise InputError(
                f"{folder} is a PyTorch file that was unzipped: get the .pth file again, or pack it without compression"
                f" (cd {inside.parent} && zip -0 -r weights.pth {inside.name})."
            )
