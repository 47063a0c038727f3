"""Reads photo files, and decides for each whether it can be used: always RGB, always upright."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from deskpro_jax.data.image_damage import JPEG, broken_structure, jpeg_complaint
from deskpro_jax.data.image_report import FORMATS, MAX_PIXELS, ImageReport
from deskpro_jax.errors import InputError

MIN_SIDE = 2  # pixels that a network needs to see an extent
# Modes of Pillow: of one channel, and all of 8 bits per channel.
_GREY = ("1", "L", "LA", "La")
_EIGHT_BIT = (*_GREY, "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_SAME_COLOURS = ("YCbCr", "RGB", "Gray")  # of JPEG, that simplejpeg and Pillow turn into the same RGB; CMYK is not
_OPENING = threading.Lock()  # warnings filters belong to the process

Photo = str | os.PathLike[str] | Image.Image | np.ndarray


class UnreadableError(Exception):
    """A photo cannot be used; the text gives the reason."""


def read_photo(photo: Photo) -> Image.Image:
    """Returns a photo as RGB, turned upright by its EXIF orientation.

    Args:
        photo: path of a file, Pillow image of any mode, or [height, width, 3] uint8 RGB.

    Returns:
        The image, decoded; the argument is not changed.

    Raises:
        UnreadableError: the file is missing, damaged or not an image.
        InputError: it is of another type, or an array of another shape or dtype.
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
    """Turns any error of Pillow while a file is read into an `UnreadableError` with the reason, the same everywhere.

    Args:
        path: the file.

    Raises:
        UnreadableError: Pillow raised an error.
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


def read_pixels(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "height width 3"]:
    """Reads a photo file as `read_photo` does, within the limits that hold for datasets.

    Args:
        path: the file.

    Returns:
        RGB pixels, upright.

    Raises:
        UnreadableError: it is missing, damaged, not an image, too large or too small, has several frames or channels
            of other than 8 bits.
    """
    with explained(path), Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:  # a few of such photos would fill the memory
            raise UnreadableError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        if image.mode not in _EIGHT_BIT:
            raise UnreadableError(f"mode {image.mode}, not 8 bits per channel")
        if _count_frames(image) > 1:
            raise UnreadableError("several frames")
        pixels = np.asarray(upright(image))
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise UnreadableError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels, too small")
    return pixels


def decode(content: bytes) -> np.ndarray | Image.Image:
    """Decodes a photo of a built dataset, which is upright already, to RGB.

    JPEG is decoded by simplejpeg where it gives Pillow's pixels, in a third of the time.
    """
    if content.startswith(JPEG):
        with contextlib.suppress(ValueError):  # damaged, for which Pillow has its own rules
            if simplejpeg.decode_jpeg_header(content)[2] in _SAME_COLOURS:
                pixels: np.ndarray = simplejpeg.decode_jpeg(content)
                return pixels
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Returns an image in RGB, turned by its EXIF orientation; the argument is not changed."""
    with contextlib.suppress(Exception):  # EXIF that cannot be parsed asks for nothing; damaged pixels fail below
        image = ImageOps.exif_transpose(image)
    return image.convert("RGB")


def inspect_image(content: bytes) -> ImageReport:
    """Decodes an image file to its last pixel and reports every problem; never raises for bad content.

    PNG chunks are compared with their checksums, and JPEG data is decoded by a decoder that reports every oddity, so
    that damage is found that ordinary decoding hides. A JPEG has no checksum of its own: a flipped bit that leaves
    its data well-formed changes a few pixels and can't be found in the file alone.

    Args:
        content: the bytes of the file.

    Returns:
        The report; `usable` when there is no problem.
    """
    if not content:
        return ImageReport(problems=("zero_size",), detail="0 bytes")
    broken = broken_structure(content)
    try:
        image, report = _open(content)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return ImageReport(problems=("huge",), detail=str(error))
    except Exception as error:  # Pillow's plugins raise many kinds
        problem, detail = broken or ("unreadable", _words(error))
        return ImageReport(problems=(problem,), detail=detail)
    with image:
        if report.problems:
            return report
        if broken:
            return dataclasses.replace(report, problems=broken[:1], detail=broken[1])
        return _decode(content, image, report)


def decode_upright(content: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the RGB pixels of an image, turned by its EXIF orientation.

    Args:
        content: the bytes of a file that `inspect_image` found usable.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return np.asarray(upright(image))


def as_stored(content: bytes, report: ImageReport) -> bytes:
    """Returns the bytes that a dataset holds of a usable image: the file, or a PNG where readers could disagree.

    Readers differ in whether they turn by EXIF, convert CMYK and drop transparency; for these the pixels are written
    upright, in RGB and without loss.
    """
    if report.mode in ("RGB", "L") and report.orientation == 1:
        return content
    buffer = io.BytesIO()
    Image.fromarray(decode_upright(content)).save(buffer, "PNG")
    return buffer.getvalue()


def _open(content: bytes) -> tuple[Image.Image, ImageReport]:
    """Opens an image without decoding it, and reports the content of its header."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and the like; what matters comes back as a finding
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        try:
            frames = _count_frames(image)
            report = ImageReport(image.width, image.height, image.mode, image.format or "", _orientation(image), frames)
        except BaseException:
            image.close()
            raise
    problems = []
    if min(image.size) < 1:
        problems.append("zero_size")
    if image.width * image.height > MAX_PIXELS:
        problems.append("huge")
    if frames > 1:
        problems.append("animated")
    if image.mode not in _EIGHT_BIT:
        problems.append("not_8_bit")
    detail = f"{image.width} x {image.height} pixels, mode {image.mode}, {frames} frame{'s' * (frames != 1)}"
    return image, dataclasses.replace(report, problems=tuple(problems), detail=detail if problems else "")


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # EXIF that can't be parsed asks for nothing; the pixels are not touched by it
        return 1
    return orientation if orientation in range(1, 9) else 1


def _decode(content: bytes, image: Image.Image, report: ImageReport) -> ImageReport:
    """Decodes an opened image and adds the problems and remarks that only its pixels show."""
    try:
        image.load()
        colour = image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds
        problem = "truncated" if "truncated" in str(error).lower() else "unreadable"
        return dataclasses.replace(report, problems=(problem,), detail=_words(error))
    if report.format in ("JPEG", "MPO") and (complaint := jpeg_complaint(content, report.mode)):
        problem = "truncated" if complaint.startswith("Premature end") else "damaged"
        return dataclasses.replace(report, problems=(problem,), detail=complaint)
    red, green, blue = colour.split()
    grey = not ImageChops.difference(red, green).getbbox() and not ImageChops.difference(red, blue).getbbox()
    remarks = {
        "grey": report.mode in _GREY or grey,
        "cmyk": report.mode == "CMYK",
        "exif_rotated": report.orientation != 1,
        "transparent": report.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info,
    }
    return dataclasses.replace(report, remarks=tuple(name for name, applies in remarks.items() if applies))


def _count_frames(image: Image.Image) -> int:
    """Returns the number of frames of an opened file; the previews in an MPO file don't count."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _words(error: BaseException) -> str:
    """Returns an error's message without the addresses of objects."""
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)}"
    return str(error) or type(error).__name__
