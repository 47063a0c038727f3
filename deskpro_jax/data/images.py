"""Reads photos given as files, Pillow images or arrays: always RGB, always upright."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deskpro_jax.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")  # of photo files, in lower case
JPEG = b"\xff\xd8"  # what such files begin with
Photo = str | os.PathLike[str] | Image.Image | np.ndarray


class UnreadableError(Exception):
    """A photo cannot be used; the text says why."""


def read_photo(photo: Photo) -> Image.Image:
    """Returns a photo as RGB, turned upright as its EXIF orientation says.

    Args:
      photo: path of a file, Pillow image of any mode, or [height, width, 3] uint8 RGB.

    Returns:
      The image, decoded; the argument is not changed.

    Raises:
      UnreadableError: the file is missing, damaged or no image.
      InputError: it is none of these kinds, or an array of another shape or type.
    """
    if isinstance(photo, np.ndarray):
        return Image.fromarray(_checked(photo))
    if isinstance(photo, Image.Image):
        return upright(photo)
    if not isinstance(photo, (str, os.PathLike)):
        raise InputError(f"a photo is a {type(photo).__name__}; expected a path, a Pillow image or a uint8 array.")
    with explained(photo), Image.open(photo) as image:
        return upright(image)


@contextlib.contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what Pillow raises while a file is read into an `UnreadableError` that says why, the same everywhere.

    Args:
      path: the file.

    Raises:
      UnreadableError: something was raised.
    """
    try:
        yield
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        empty = os.path.getsize(path) == 0
        raise UnreadableError("an empty file" if empty else "not an image that Pillow knows") from None
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UnreadableError(f"{type(error).__name__}: {error}") from error


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(
            f"a photo is an array of shape {pixels.shape} and type {pixels.dtype}; expected [height, width, 3] uint8, "
            "RGB from 0 to 255."
        )
    return pixels


def upright(image: Image.Image) -> Image.Image:
    """Returns an image in RGB, turned as its EXIF orientation says; the argument is not changed."""
    with contextlib.suppress(Exception):  # EXIF that cannot be parsed asks for nothing; damaged pixels fail below
        image = ImageOps.exif_transpose(image)
    return image.convert("RGB")
