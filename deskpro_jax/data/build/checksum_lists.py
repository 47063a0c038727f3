"""Reads lists of checksums as `sha256sum` writes them; they reveal flipped bits that no image decoder notices."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from deskpro_jax.data.build.image_sources import Finding, ImageSource
from deskpro_jax.errors import InputError

SUMS = "SHA256SUMS"


def read_sums(folder: Path | None) -> dict[str, str]:
    """Reads the list in a folder.

    Args:
        folder: where SHA256SUMS may be; its paths are relative to it.

    Returns:
        The SHA-256 of each file by its absolute path; empty where there is no list.

    Raises:
        InputError: a line is not a checksum and a path.
    """
    file = folder / SUMS if folder is not None else None
    if file is None or not file.is_file():
        return {}
    result = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line)
        if not match:
            raise InputError(f"{file}, line {number}: expected a SHA-256 and a path, as sha256sum writes them")
        result[os.path.abspath(file.parent / match[2])] = match[1].lower()
    return result


def with_sums(sources: Sequence[ImageSource], sums: dict[str, str]) -> tuple[list[ImageSource], list[Finding]]:
    """Gives each source the checksums that its files must have.

    Args:
        sources: the images.
        sums: as `read_sums` returns them.

    Returns:
        The sources, and the listed files that are not there.
    """
    if not sums:
        return list(sources), []

    def expected(file: str | None) -> str:
        return sums.get(os.path.abspath(file), "") if file is not None else ""

    with_expected = [dataclasses.replace(source, sha256=tuple(map(expected, source.files))) for source in sources]
    absent = (path for path in sorted(sums) if not os.path.exists(path))
    return with_expected, [Finding(path, f": {SUMS} lists it, but it does not exist: get it again") for path in absent]
