"""The problems and remarks that an image file can have, in words, and the report on one file."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from deskpro_jax.data.photo_names import HAS_AVIF, HEIC_REMEDY

# By content, whatever the file's suffix.
FORMATS = (
    *("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"),
    *(("AVIF",) if HAS_AVIF else ()),
)
MAX_PIXELS = 100_000_000
FULL_PIXELS = 2**24  # 4096 x 4096: what has more is read at a half, quarter or eighth of its width and height
MIN_SIDE = 8  # pixels; a person shows on no fewer


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
    "heic": FindingKind(True, "is a HEIC photo, which Pillow alone does not read", HEIC_REMEDY),
    "too_small": FindingKind(True, f"has a side of under {MIN_SIDE} pixels", "replace or remove it"),
    "huge": FindingKind(True, f"has more than {MAX_PIXELS:,} pixels", "make it smaller"),
    "bit_depth": FindingKind(True, "has other than 8 or 16 bits per channel", "convert it to 8 bits per channel"),
    "animated": FindingKind(False, "holds several frames or pages", "the first is used"),
    "16_bit": FindingKind(False, "has 16 bits per channel", "scaled to 8 bits"),
    "excess": FindingKind(False, "has bytes that belong to no image", "they are ignored"),
    "reduced": FindingKind(False, f"has more than {FULL_PIXELS:,} pixels", "read at 1/2 or 1/4 of its size"),
    "grey": FindingKind(False, "has no colour", "used, the one channel as three"),
    "cmyk": FindingKind(False, "is made for print (CMYK)", "converted to RGB"),
    "exif_rotated": FindingKind(False, "is stored turned, with its orientation in EXIF", "turned upright"),
    "transparent": FindingKind(False, "has an alpha channel", "what is transparent becomes white"),
    "faces_outside_head": FindingKind(
        False,
        "shows faces, none of them in the head region",
        "used without a face; --head-bottom and --head-side widen the region",
    ),
}


UNREMARKABLE = ("exif_rotated", "grey")  # which photos are every day; `data_prep.check` lists them


class Remarks:
    """Counts the remarks on many photos, and keeps the first photo of each."""

    def __init__(self) -> None:
        """Starts without a remark."""
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, photo: str, names: Iterable[str]) -> None:
        """Counts the remarks on a photo.

        Args:
            photo: its name.
            names: of remarks in `KINDS`.
        """
        for name in names:
            self._counts[name] += 1
            self._first.setdefault(name, photo)

    def lines(self) -> list[str]:
        """Returns a line for each kind of remark but the `UNREMARKABLE` ones."""
        lines = []
        for name, kind in KINDS.items():
            if (count := self._counts[name]) and name not in UNREMARKABLE:
                likewise = f" (likewise {count - 1:,} other photo{'s' * (count > 2)})" if count > 1 else ""
                lines.append(f"{self._first[name]} {kind.text}: {kind.remedy}{likewise}.")
        return lines


def reduction(width: int, height: int) -> int:
    """Returns by what width and height of a photo are divided when it is read: 1 up to `FULL_PIXELS`, else 2, 4 or 8.

    Args:
        width: pixels, as stored.
        height: pixels, as stored.
    """
    return next((factor for factor in (1, 2, 4) if width * height <= factor**2 * FULL_PIXELS), 8)


@dataclasses.dataclass(frozen=True)
class ImageReport:
    """The report of `images.inspect_image` on one file.

    Attributes:
        width: pixels, as stored (before any turn by EXIF); 0 when not known.
        height: pixels, as stored.
        mode: Pillow's name of the pixel type, as "RGB", "L", "CMYK"; "" when not known.
        format: one of `FORMATS`, "MPO" (a JPEG with previews) or "HEIF"; "" when not known.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        frames: number of frames or pages; the previews in an MPO file don't count.
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

    @property
    def reduction(self) -> int:
        """By what width and height are divided when the image is read."""
        return reduction(self.width, self.height)

    @property
    def read_size(self) -> tuple[int, int]:
        """Height and width in pixels of the image as it is read: upright, large ones reduced."""
        height, width = self.upright_size
        return -(-height // self.reduction), -(-width // self.reduction)

    def describe(self) -> str:
        """Returns the problems in words, with what to do: follows the name of the file in an error."""
        detail = f" ({self.detail})" if self.detail else ""
        return "; ".join(f"{KINDS[name].text}{detail}: {KINDS[name].remedy}" for name in self.problems)
