"""The problems and remarks that an image file can have, in words, and the report on one file."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")  # by content, whatever the file's suffix
MAX_PIXELS = 2**24  # 4096 x 4096: a larger photo takes longer to decode than a training step


class FindingKind(NamedTuple):
    """A kind of finding.

    Attributes:
        fatal: the image can't be used; otherwise the finding is worth knowing and the image is used.
        text: in words that follow the name of a file.
        remedy: what the user should do, or what is done with the image.
    """

    fatal: bool
    text: str
    remedy: str


KINDS: dict[str, FindingKind] = {
    "zero_size": FindingKind(True, "is not a readable image, it has no bytes or no pixels", "get the file again"),
    "unreadable": FindingKind(True, "is not a readable image", "replace or remove it"),
    "truncated": FindingKind(True, "is not a readable image, it ends before its last pixel", "get the file again"),
    "damaged": FindingKind(True, "is not a readable image, its data can't be what was written", "get the file again"),
    "huge": FindingKind(True, f"has more than {MAX_PIXELS:,} pixels", "make it smaller"),
    "animated": FindingKind(True, "holds several frames", "save one frame as a file of its own"),
    "not_8_bit": FindingKind(True, "has no channels of 8 bits", "convert it to 8 bits per channel"),
    "grey": FindingKind(False, "has no colour", "used, the one channel as three"),
    "cmyk": FindingKind(False, "is made for print (CMYK)", "converted to RGB"),
    "exif_rotated": FindingKind(False, "is stored turned, with its orientation in EXIF", "turned upright"),
    "transparent": FindingKind(False, "has an alpha channel", "the channel is dropped"),
}


@dataclasses.dataclass(frozen=True)
class ImageReport:
    """The report of `images.inspect_image` on one file.

    Attributes:
        width: pixels, as stored (before any turn by EXIF); 0 when not known.
        height: pixels, as stored.
        mode: Pillow's name of the pixel type, as "RGB", "L", "CMYK"; "" when not known.
        format: one of `FORMATS`, or "MPO" (a JPEG with previews); "" when not known.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        frames: number of frames; the previews in an MPO file don't count.
        problems: names in `KINDS` of what makes the image unusable.
        remarks: names in `KINDS` of what is worth knowing.
        detail: the decoder's message, where it failed.
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
        detail = f" ({self.detail})" if self.detail else ""
        return "; ".join(f"{KINDS[name].text}{detail}: {KINDS[name].remedy}" for name in self.problems)
