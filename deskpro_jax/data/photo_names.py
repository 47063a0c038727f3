"""Names of photo files: which suffixes photos have, and which names are the same photo."""

from __future__ import annotations

import importlib.util
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from PIL import features

from deskpro_jax.errors import InputError

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
HEIC_READER = "pillow_heif"  # of the extra "heic"
HEIC_REMEDY = "install 'deskpro_jax[heic]' (pillow-heif), or save it as JPEG"
_ALWAYS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".webp", ".tif", ".tiff", ".gif")
_LEFT_BY_FILE_MANAGERS = ("thumbs.db", "desktop.ini", "@eadir", "__macosx")
_KINDS_SHOWN = 6
HAS_AVIF = "avif" in features.modules and features.check_module("avif")  # Pillow before 11.3 does not know the word


def has_heic_reader() -> bool:
    """Returns whether the library that decodes HEIC is installed."""
    return importlib.util.find_spec(HEIC_READER) is not None


# Of photo files, in lower case; every command takes these and no others.
SUFFIXES = (
    *_ALWAYS,
    *((".avif",) if HAS_AVIF else ()),
    *(HEIC_SUFFIXES if has_heic_reader() else ()),
)


def is_photo_name(name: str) -> bool:
    """Returns whether a file is taken for a photo, by its suffix in any case; hidden files are not."""
    base = name.rpartition("/")[2]
    return base.lower().endswith(SUFFIXES) and not base.startswith(".")


def is_left_behind(name: str) -> bool:
    """Returns whether a file or folder is hidden or was left by a file manager, and so is nobody's photo."""
    return name.startswith(".") or name.lower() in _LEFT_BY_FILE_MANAGERS


def normalised_stem(path: str | os.PathLike[str]) -> str:
    """Returns the name by which a photo, its face and its mask are matched.

    macOS writes letters with accents as two characters (Unicode normal form D), other systems as one (form C); both
    are one name here.

    Args:
        path: relative to the folder that the names start from.

    Returns:
        The path with forward slashes and without suffix, in Unicode normal form C.
    """
    return unicodedata.normalize("NFC", str(PurePosixPath(Path(path).as_posix()).with_suffix("")))


def existing_path(folder: Path, relative: str) -> Path:
    """Returns the path of a file that a table names, in the Unicode normal form in which the file is there.

    Args:
        folder: that the name is relative to.
        relative: the name; an absolute path is taken as it is.

    Returns:
        The path as it is named where no form of it exists.
    """
    path = folder / relative
    if relative.isascii() or path.exists():
        return path
    forms = (folder / unicodedata.normalize(form, relative) for form in ("NFC", "NFD"))
    return next((other for other in forms if other.exists()), path)


def files_below_folder(folder: Path) -> Iterator[str]:
    """Yields all files below a folder, links to folders followed; hidden files and folders are left out.

    Args:
        folder: the folder.

    Yields:
        Paths relative to `folder` with forward slashes, those of each folder in the order of their names.

    Raises:
        InputError: a folder cannot be read, or a name is not valid UTF-8.
    """
    yield from _walk(folder, "", [folder])


def _walk(folder: Path, prefix: str, above: list[Path]) -> Iterator[str]:
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): correct its permissions.") from error
    for entry in entries:
        if is_left_behind(entry.name):
            continue
        if entry.is_dir():
            inner = Path(entry.path)
            if not (entry.is_symlink() and any(inner.samefile(other) for other in above)):
                yield from _walk(inner, f"{prefix}{entry.name}/", [*above, inner])
        elif entry.is_file():
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                if is_photo_name(entry.name):
                    raise InputError(f"the name {entry.path!a} is not valid UTF-8: rename the file.") from None
            yield prefix + entry.name


def count_others(names: Iterator[str]) -> Counter[str]:
    """Returns how many files of each suffix are not taken for photos.

    Args:
        names: of files; those of photos are passed over.
    """
    suffixes = (PurePosixPath(name).suffix.lower() or "without suffix" for name in names if not is_photo_name(name))
    return Counter(suffixes)


def passed_over(others: Mapping[str, int]) -> str:
    """Returns a line on the files that were not taken for photos, "" where there are none.

    Args:
        others: suffix -> number of files, as `count_others` returns it.
    """
    total = sum(others.values())
    if not total:
        return ""
    ranked = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in ranked[:_KINDS_SHOWN])
    more = f" and {len(ranked) - _KINDS_SHOWN} more kinds" if len(ranked) > _KINDS_SHOWN else ""
    heic = "" if has_heic_reader() or not set(others) & set(HEIC_SUFFIXES) else f"; for HEIC, {HEIC_REMEDY}"
    were = "other file was" if total == 1 else "other files were"
    return f"{total:,} {were} passed over: {kinds}{more}{heic}"
