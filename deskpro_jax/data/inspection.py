"""Looks at one image file: what it holds, and every reason why it can or should not be used."""

from __future__ import annotations

import dataclasses
import io
import threading
import warnings
import zlib
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageChops, UnidentifiedImageError

from deskpro_jax.data.images import JPEG, upright

MAX_PIXELS = 2**24  # 4096 x 4096: a photo beyond it takes longer to decode than a training step
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")  # by content; file names are never looked at


class Kind(NamedTuple):
    """A kind of finding.

    Attributes:
      fatal: The image can't be used; otherwise the finding is worth knowing and the image is used.
      text: What is meant, ready to follow the name of a file.
      remedy: What to do about it, or what is done.
    """

    fatal: bool
    text: str
    remedy: str


KINDS: dict[str, Kind] = {
    "zero_size": Kind(True, "is not a readable image, it has no bytes or no pixels", "get the file again"),
    "unreadable": Kind(True, "is not a readable image", "replace or remove it"),
    "truncated": Kind(True, "is not a readable image, it ends before its last pixel", "get the file again"),
    "damaged": Kind(True, "is not a readable image, its data can't be what was written", "get the file again"),
    "huge": Kind(True, f"has more than {MAX_PIXELS:,} pixels", "make it smaller"),
    "animated": Kind(True, "holds several frames", "save the frame that is meant"),
    "not_8_bit": Kind(True, "has no channels of 8 bits", "convert it to 8 bits a channel"),
    "grey": Kind(False, "has no colour", "used, the one channel as three"),
    "cmyk": Kind(False, "is made for print (CMYK)", "converted to RGB"),
    "exif_rotated": Kind(False, "is stored turned, with its orientation in EXIF", "turned upright"),
    "transparent": Kind(False, "has an alpha channel", "the channel is dropped"),
}
# Modes of Pillow: of one channel, and all of 8 bits a channel.
_GREY = ("1", "L", "LA", "La")
EIGHT_BIT = (*_GREY, "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # JPEG's SOF markers
_OPENING = threading.Lock()  # warnings filters belong to the process


@dataclasses.dataclass(frozen=True)
class ImageReport:
    """What `inspect_image` found.

    Attributes:
      width: Pixels, as stored (before any turn by EXIF); 0 when not known.
      height: Pixels, as stored.
      mode: Pillow's name of the pixel type, as "RGB", "L", "CMYK"; "" when not known.
      format: One of `FORMATS`, or "MPO" (a JPEG with previews); "" when not known.
      orientation: EXIF orientation, 1 to 8; 1 is upright.
      frames: Number of frames; the previews in an MPO file don't count.
      problems: Names in `KINDS` of what makes the image unusable.
      remarks: Names in `KINDS` of what is worth knowing.
      detail: What the decoder said, where it failed.
    """

    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    orientation: int = 1
    frames: int = 0
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    detail: str = ""

    @property
    def usable(self) -> bool:
        """Whether the image can be used."""
        return not self.problems

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width in pixels after the turn that EXIF asks for."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)

    def describe(self) -> str:
        """Returns the problems in words, with what to do: follows the name of the file in an error."""
        said = f" ({self.detail})" if self.detail else ""
        return "; ".join(f"{KINDS[name].text}{said}: {KINDS[name].remedy}" for name in self.problems)


def inspect_image(content: bytes) -> ImageReport:
    """Decodes an image file to its last pixel and says what was found; never raises for bad content.

    PNG chunks are held against their checksums and JPEG data is decoded by a decoder that tells of every oddity, so
    that damage is found that ordinary decoding hides. A JPEG has no checksum of its own: a flipped bit that leaves
    its data well-formed changes a few pixels and can't be found in the file alone.

    Args:
      content: The bytes of the file.

    Returns:
      The report; `usable` when nothing stands against the image.
    """
    if not content:
        return ImageReport(problems=("zero_size",), detail="0 bytes")
    broken = _broken_structure(content)
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
    """Returns the RGB pixels of an image, turned as its EXIF orientation says.

    Args:
      content: The bytes of a file that `inspect_image` found usable.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return np.asarray(upright(image))


def count_frames(image: Image.Image) -> int:
    """Returns how many pictures an opened file holds; the previews in an MPO file don't count."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def as_stored(content: bytes, report: ImageReport) -> bytes:
    """Returns what a dataset holds of a usable image: the file itself, or a PNG where readers could disagree.

    Readers differ in whether they turn by EXIF, convert CMYK and drop transparency; for these the pixels are written
    upright, in RGB and without loss.
    """
    if report.mode in ("RGB", "L") and report.orientation == 1:
        return content
    buffer = io.BytesIO()
    Image.fromarray(decode_upright(content)).save(buffer, "PNG")
    return buffer.getvalue()


def _open(content: bytes) -> tuple[Image.Image, ImageReport]:
    """Opens an image without decoding it, and reports what its header says."""
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and the like; what matters comes back as a finding
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        try:
            frames = count_frames(image)
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
    if image.mode not in EIGHT_BIT:
        problems.append("not_8_bit")
    detail = f"{image.width} x {image.height} pixels, mode {image.mode}, {frames} frame{'s' * (frames != 1)}"
    return image, dataclasses.replace(report, problems=tuple(problems), detail=detail if problems else "")


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # EXIF that can't be parsed asks for nothing; the pixels are not touched by it
        return 1
    return found if found in range(1, 9) else 1


def _decode(content: bytes, image: Image.Image, report: ImageReport) -> ImageReport:
    """Decodes an opened image and adds what only its pixels tell."""
    try:
        image.load()
        colour = image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds
        problem = "truncated" if "truncated" in str(error).lower() else "unreadable"
        return dataclasses.replace(report, problems=(problem,), detail=_words(error))
    if report.format in ("JPEG", "MPO") and (said := _jpeg_complaint(content, report.mode)):
        problem = "truncated" if said.startswith("Premature end") else "damaged"
        return dataclasses.replace(report, problems=(problem,), detail=said)
    red, green, blue = colour.split()
    grey = not ImageChops.difference(red, green).getbbox() and not ImageChops.difference(red, blue).getbbox()
    found = {
        "grey": report.mode in _GREY or grey,
        "cmyk": report.mode == "CMYK",
        "exif_rotated": report.orientation != 1,
        "transparent": report.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info,
    }
    return dataclasses.replace(report, remarks=tuple(name for name, there in found.items() if there))


def _broken_structure(content: bytes) -> tuple[str, str] | None:
    """Returns problem and detail when the blocks that a PNG or JPEG file is made of don't fit together."""
    if content.startswith(_PNG):
        return _broken_png(content)
    return _broken_jpeg(content) if content.startswith(JPEG) else None


def _broken_png(content: bytes) -> tuple[str, str] | None:
    position = len(_PNG)
    while position + 12 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        end = position + 12 + size
        if end > len(content):
            break
        name = content[position + 4 : position + 8]
        if zlib.crc32(content[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return "damaged", f"checksum of chunk {name.decode('ascii', 'backslashreplace')} is wrong"
        if name == b"IHDR" and bytes(4) in (
            content[position + 8 : position + 12],
            content[position + 12 : position + 16],
        ):
            return "zero_size", "width or height is 0"
        if name == b"IEND":
            return None
        position = end
    return "truncated", "no end mark"


def _broken_jpeg(content: bytes) -> tuple[str, str] | None:
    position = len(JPEG)
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            return "damaged", f"no marker at byte {position}"
        marker = content[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # without a segment
            position += 2
            continue
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if end > len(content):
            return "truncated", f"segment {marker:02X} is longer than the file"
        segment = content[position + 4 : end]
        if marker == 0xDA:  # from here on 0xFF is followed by 0, a restart mark or a marker
            return None if content.find(b"\xff\xd9", end) >= 0 else ("truncated", "no end mark")
        if marker in _FRAMES and bytes(2) in (segment[1:3], segment[3:5]):
            return "zero_size", "width or height is 0"
        if marker == 0xDB and not _sound_quantisation(segment):
            return "damaged", "wrong quantisation table"
        if marker == 0xC4 and not _sound_huffman(segment):
            return "damaged", "wrong Huffman table"
        position = end
    return "truncated", "no pixels"


def _sound_quantisation(segment: bytes) -> bool:
    """Tells whether a segment holds whole quantisation tables without a divisor of 0 (ITU-T T.81, B.2.4.1)."""
    while segment:
        precision, size = segment[0] >> 4, 1 + 64 * (1 + (segment[0] >> 4))
        divisors = np.frombuffer(segment[1:size], ">u2" if precision else np.uint8) if len(segment) >= size else None
        if precision > 1 or segment[0] & 15 > 3 or divisors is None or not divisors.all():
            return False
        segment = segment[size:]
    return True


def _sound_huffman(segment: bytes) -> bool:
    """Tells whether a segment holds whole Huffman tables that name each symbol once (ITU-T T.81, B.2.4.2)."""
    while segment:
        counts = segment[1:17]
        symbols = segment[17 : 17 + sum(counts)]
        if segment[0] >> 4 > 1 or segment[0] & 15 > 3 or len(counts) < 16 or len(symbols) < sum(counts):
            return False
        if len(set(symbols)) < len(symbols):
            return False
        segment = segment[17 + len(symbols) :]
    return True


def _jpeg_complaint(content: bytes, mode: str) -> str:
    """Returns what libjpeg has to say about data that Pillow decodes in silence; "" for sound data."""
    try:
        simplejpeg.decode_jpeg(content, {"L": "GRAY", "CMYK": "CMYK"}.get(mode, "RGB"), strict=True)
    except ValueError as error:
        return str(error)
    return ""


def _words(error: BaseException) -> str:
    """Returns an error's message without the addresses of objects."""
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)}"
    return str(error) or type(error).__name__
