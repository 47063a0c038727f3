"""Reads photo files, and decides for each whether it can be used: always RGB, always upright.

All commands read by `open_photo` or `inspect_image`, so that a file has one verdict, in one wording, everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import threading
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageChops, UnidentifiedImageError

from deskpro_jax.data.image_colours import SIXTEEN_BIT, is_transparent, to_rgb, turned
from deskpro_jax.data.image_damage import JPEG, check_structure, decode_jpeg
from deskpro_jax.data.image_report import FORMATS, KINDS, MAX_PIXELS, MIN_SIDE, ImageReport, reduction
from deskpro_jax.data.photo_names import HEIC_READER, has_heic_reader
from deskpro_jax.errors import InputError

# Modes of Pillow: of one channel, and all of 8 bits per channel.
_GREY = ("1", "L", "LA", "La", *SIXTEEN_BIT)
_EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_WIDE = {"I": "32-bit integers", "F": "32-bit floats"}
_SAME_COLOURS = ("YCbCr", "RGB", "Gray")  # of JPEG, that simplejpeg and Pillow turn into the same RGB; CMYK is not
_ODD_SAMPLING = "Could not determine subsampling level"  # simplejpeg's word for sound files that only Pillow decodes
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_STORED = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF")  # formats that every Pillow reads
_ORIENTATION, _WIDTH, _HEIGHT = 274, 256, 257  # tags of EXIF and TIFF
_OPENING = threading.Lock()  # warnings filters belong to the process
_LARGE = threading.Lock()  # one large photo at a time is decoded in full, so that memory stays bounded

Photo = str | os.PathLike[str] | Image.Image | np.ndarray


class UnreadableError(Exception):
    """A photo cannot be used; the text gives the reason."""


class ReadPhoto(NamedTuple):
    """A photo as it is read.

    Attributes:
        image: RGB, upright; photos of more than `image_report.FULL_PIXELS` are reduced.
        report: of the file, or of the image or array.
        content: the bytes of the file, None for an image or array.
    """

    image: Image.Image
    report: ImageReport
    content: bytes | None


def open_photo(photo: Photo) -> ReadPhoto:
    """Reads a photo and reports what is worth knowing about it.

    Args:
        photo: path of a file, Pillow image of any mode, or [height, width, 3] uint8 RGB.

    Returns:
        The photo; the argument is not changed.

    Raises:
        UnreadableError: the file is missing or damaged, or the image cannot be used (`image_report.KINDS`).
        InputError: it is of another type, or an array of another shape or dtype.
    """
    if isinstance(photo, np.ndarray):
        photo = Image.fromarray(_checked(photo))
    if isinstance(photo, Image.Image):
        report, image = _take(photo)
        return ReadPhoto(_usable(report, image), report, None)
    if not isinstance(photo, (str, os.PathLike)):
        raise InputError(f"a photo is a {type(photo).__name__}; expected a path, a Pillow image or a uint8 array.")
    content = read_file(photo)
    report, image = _examine(content)
    return ReadPhoto(_usable(report, image), report, content)


def read_photo(photo: Photo) -> Image.Image:
    """Returns a photo as RGB, upright; see `open_photo`."""
    return open_photo(photo).image


def read_pixels(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the pixels of a photo file as RGB, upright; see `open_photo`."""
    return np.asarray(read_photo(path))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a file.

    Raises:
        UnreadableError: it is missing or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UnreadableError(f"can't be read ({getattr(error, 'strerror', error)}): replace or remove it") from error


def inspect_image(content: bytes, min_side: int = MIN_SIDE) -> ImageReport:
    """Decodes an image file to its last pixel and reports every problem; never raises for bad content.

    PNG chunks are compared with their checksums, and JPEG data is decoded by a decoder that reports every oddity, so
    that damage is found that ordinary decoding hides. A JPEG has no checksum of its own: a flipped bit that leaves
    its data well-formed changes a few pixels and can't be found in the file alone.

    Args:
        content: the bytes of the file.
        min_side: pixels that each side must have; 1 for a mask or label map.

    Returns:
        The report; `usable` when there is no problem.
    """
    report, colour = _examine(content, min_side)
    if colour is None:
        return report
    red, green, blue = colour.split()
    grey = not ImageChops.difference(red, green).getbbox() and not ImageChops.difference(red, blue).getbbox()
    return _with_remarks(report, *(("grey",) if grey or report.mode in _GREY else ()))


def decode_image(content: bytes) -> Image.Image:
    """Returns a photo of a built dataset as an RGB image, see `decode`."""
    decoded = decode(content)
    return Image.fromarray(decoded) if isinstance(decoded, np.ndarray) else decoded


def decode(content: bytes) -> np.ndarray | Image.Image:
    """Decodes a photo of a built dataset, which is upright already, to RGB.

    JPEG is decoded by simplejpeg where it gives Pillow's pixels, in a third of the time.
    """
    if content.startswith(JPEG):
        with contextlib.suppress(ValueError):  # damaged, for which Pillow has its own rules
            height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
            if colours in _SAME_COLOURS:
                factor = reduction(width, height)
                size = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
                pixels: np.ndarray = simplejpeg.decode_jpeg(content, **size)
                return pixels
    with Image.open(io.BytesIO(content)) as image:
        return to_rgb(image, reduction(image.width, image.height))


def decode_upright(content: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the RGB pixels of an image as it is read: upright, large ones reduced.

    Args:
        content: the bytes of a file that `inspect_image` found usable.

    Raises:
        UnreadableError: it can't be used.
    """
    return np.asarray(_usable(*_examine(content)))


def as_stored(content: bytes, report: ImageReport) -> bytes:
    """Returns the bytes that a dataset holds of a usable image: the file, or a PNG where readers could disagree.

    Readers differ in whether they turn by EXIF, convert CMYK and 16 bits, draw over white and know a format; for these
    the pixels are written as they are read, without loss.
    """
    plain = report.mode in ("RGB", "L") and report.orientation == 1 and report.format in _STORED
    whole = report.reduction == 1 or report.format in ("JPEG", "MPO")  # `decode` reduces these as they are read
    if plain and whole and not {"transparent", "animated", "16_bit"} & set(report.remarks):
        return content
    buffer = io.BytesIO()
    Image.fromarray(decode_upright(content)).save(buffer, "PNG")
    return buffer.getvalue()


def _usable(report: ImageReport, image: Image.Image | None) -> Image.Image:
    if image is None:
        raise UnreadableError(report.describe())
    return image


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(
            f"a photo is an array of shape {pixels.shape} and type {pixels.dtype}; expected [height, width, 3] uint8, "
            "RGB from 0 to 255."
        )
    return pixels


def _take(image: Image.Image) -> tuple[ImageReport, Image.Image | None]:
    """Returns report and pixels of an image that a caller opened or made."""
    report = _describe(image, 1)
    if report.problems:
        return report, None
    try:
        return _decoded(image, report)
    except Exception as error:  # Pillow's decoders raise many kinds
        return _failed(report, error), None


def _examine(content: bytes, min_side: int = MIN_SIDE) -> tuple[ImageReport, Image.Image | None]:
    """Returns the report on a file, and its pixels in RGB, upright and reduced, where it can be used."""
    if not content:
        return ImageReport(problems=("zero_size",), detail="0 bytes"), None
    formats: tuple[str, ...] = FORMATS
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS and b"avi" not in content[8:64]:
        if not has_heic_reader():
            return ImageReport(problems=("heic",)), None
        importlib.import_module(HEIC_READER).register_heif_opener()
        formats = ("HEIF",)
    structure = check_structure(content)
    try:
        image, report = _open(content, formats, min_side)
    except Exception as error:  # Pillow's plugins raise many kinds
        if isinstance(error, Image.DecompressionBombError):
            return ImageReport(problems=("huge",), detail=str(error)), None
        problem, detail = (structure.problem, structure.detail) if structure.problem else ("unreadable", _words(error))
        return ImageReport(problems=(problem,), detail=detail), None
    with image:
        if report.problems:
            return report, None
        if structure.problem:
            return dataclasses.replace(report, problems=(structure.problem,), detail=structure.detail), None
        if structure.excess and report.format != "MPO":  # whose previews follow the image
            report = _with_remarks(report, "excess")
        is_jpeg = report.format in ("JPEG", "MPO")
        try:
            return _decode_jpeg(content, image, report) if is_jpeg else _decoded(image, report)
        except ValueError as error:
            if is_jpeg:
                problem = "truncated" if str(error).startswith("Premature end") else "damaged"
                return dataclasses.replace(report, problems=(problem,), remarks=(), detail=str(error)), None
            return _failed(report, error), None
        except Exception as error:  # Pillow's decoders raise many kinds
            return _failed(report, error), None


def _failed(report: ImageReport, error: Exception) -> ImageReport:
    problem = "truncated" if "truncated" in str(error).lower() else "unreadable"
    return dataclasses.replace(report, problems=(problem,), remarks=(), detail=_words(error))


def _open(content: bytes, formats: tuple[str, ...], min_side: int) -> tuple[Image.Image, ImageReport]:
    """Opens an image without decoding it, and reports the content of its header."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and the like; what matters comes back as a finding
        image = Image.open(io.BytesIO(content), formats=formats)
        try:
            return image, _describe(image, _count_frames(image), min_side)
        except BaseException:
            image.close()
            raise


def _describe(image: Image.Image, frames: int, min_side: int = MIN_SIDE) -> ImageReport:
    """Returns the report on an image's header."""
    width, height = image.size
    tags = getattr(image, "tag_v2", {})
    if _WIDTH in tags and _HEIGHT in tags:  # Pillow gives the size of a TIFF after its turn
        width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
    report = ImageReport(width, height, image.mode, image.format or "", _orientation_in_header(image), frames)
    kind = f"mode {image.mode}" + (f", {_WIDE[image.mode]}" if image.mode in _WIDE else "")
    size = f"{width} x {height} pixels"
    problems = {
        "zero_size": (min(width, height) < 1, size),
        "too_small": (0 < min(width, height) < min_side, size),
        "huge": (width * height > MAX_PIXELS, size),
        "bit_depth": (image.mode not in (*_EIGHT_BIT, *SIXTEEN_BIT), kind),
    }
    names = tuple(name for name, (applies, _) in problems.items() if applies)
    if names:
        detail = ", ".join(dict.fromkeys(problems[name][1] for name in names))
        return dataclasses.replace(report, problems=names, detail=detail)
    remarks = {
        "animated": frames > 1,
        "16_bit": image.mode in SIXTEEN_BIT,
        "reduced": report.reduction > 1,
        "cmyk": image.mode == "CMYK",
        "exif_rotated": report.orientation != 1,
        "transparent": is_transparent(image),
    }
    return _with_remarks(report, *(name for name, applies in remarks.items() if applies))


def _with_remarks(report: ImageReport, *names: str) -> ImageReport:
    remarks = {*report.remarks, *names}
    return dataclasses.replace(report, remarks=tuple(name for name in KINDS if name in remarks))


def _orientation_in_header(image: Image.Image) -> int:
    """Returns the orientation as far as it is known before the pixels: a PNG may have it behind them."""
    # Pillow would decode the pixels to look there.
    return 1 if image.format == "PNG" and "exif" not in image.info else _orientation(image)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF that can't be parsed asks for nothing; the pixels are not touched by it
        return 1
    return orientation if orientation in range(1, 9) else 1


def _decode_jpeg(content: bytes, image: Image.Image, report: ImageReport) -> tuple[ImageReport, Image.Image]:
    """Decodes a JPEG, and raises ValueError for whatever the decoder finds wrong with its data."""
    try:
        same = simplejpeg.decode_jpeg_header(content)[2] in _SAME_COLOURS
    except ValueError as error:
        if _ODD_SAMPLING not in str(error):
            raise
        return _decoded(image, report)
    with _one_large(report.reduction > 1 and "progressive" in image.info):  # all its coefficients are held
        pixels, excess = decode_jpeg(content, "RGB" if same else "CMYK", report.reduction)
    if excess:
        report = _with_remarks(report, "excess")
    if same:
        return report, turned(Image.fromarray(pixels), report.orientation)
    return _decoded(image, report)


def _decoded(image: Image.Image, report: ImageReport) -> tuple[ImageReport, Image.Image]:
    with _one_large(report.reduction > 1):
        image.load()
        orientation = _orientation(image)  # Pillow turns a TIFF as it loads it, and takes the orientation away
        upright = turned(to_rgb(image, report.reduction), orientation)
    if image.format == "PNG" and orientation != report.orientation:
        report = _with_remarks(dataclasses.replace(report, orientation=orientation), "exif_rotated")
    return report, upright


def _one_large(large: bool) -> contextlib.AbstractContextManager[object]:
    return _LARGE if large else contextlib.nullcontext()


def _count_frames(image: Image.Image) -> int:
    """Returns the number of frames of an opened file; the previews in an MPO file don't count."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _words(error: BaseException) -> str:
    """Returns an error's message without the addresses of objects."""
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)}"
    return str(error) or type(error).__name__
