"""Finds damage in PNG and JPEG files that decoders pass over: wrong checksums, wrong tables, missing ends.

Bytes that do no harm are no damage: those behind the end mark, as phones put videos there, and a few
before a marker, as some cameras pad their data.

Of the single-bit flips in the header of a small JPEG, Pillow and libjpeg together notice a quarter; when its tables are
compared with the standard as well, two thirds are found.
"""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8

JPEG = b"\xff\xd8"  # the first bytes of such files
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # JPEG's SOF markers
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)  # the marker behind the pixels of a scan
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_FEW_BYTES = 8  # decoding that went astray leaves more: of 4,500 bursts of wrong bytes, two left at most 8
_SCANS = 100


class Structure(NamedTuple):
    """How the blocks of a file fit together.

    Attributes:
        problem: a fatal name of `image_report.KINDS`, "" for a sound file.
        detail: what is wrong.
        excess: whether bytes follow the end of the image.
    """

    problem: str = ""
    detail: str = ""
    excess: bool = False


def check_structure(content: bytes) -> Structure:
    """Returns whether the blocks that a PNG or JPEG file is made of fit together; other files are not looked into."""
    if content.startswith(_PNG):
        return _check_png(content)
    return _check_jpeg(content) if content.startswith(JPEG) else Structure()


def _check_png(content: bytes) -> Structure:
    position = len(_PNG)
    while position + 12 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        end = position + 12 + size
        if end > len(content):
            break
        name = content[position + 4 : position + 8]
        if zlib.crc32(content[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return Structure("damaged", f"checksum of chunk {name.decode('ascii', 'backslashreplace')} is wrong")
        if name == b"IHDR" and bytes(4) in (
            content[position + 8 : position + 12],
            content[position + 12 : position + 16],
        ):
            return Structure("zero_size", "width or height is 0")
        if name == b"IEND":
            return Structure(excess=end < len(content))
        position = end
    return Structure("truncated", "no end mark")


def _check_jpeg(content: bytes) -> Structure:
    position, scans = len(JPEG), 0
    while position + 2 <= len(content):
        if content[position] != 0xFF:
            return Structure("damaged", f"no marker at byte {position}")
        marker = content[position + 1]
        if marker == 0xD9 and scans:
            return Structure(excess=position + 2 < len(content))
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # without a segment
            position += 2
            continue
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if end > len(content) or position + 4 > len(content):
            return Structure("truncated", f"segment {marker:02X} is longer than the file")
        segment = content[position + 4 : end]
        if marker in _FRAMES and bytes(2) in (segment[1:3], segment[3:5]):
            return Structure("zero_size", "width or height is 0")
        if marker == 0xDB and not _sound_quantisation(segment):
            return Structure("damaged", "wrong quantisation table")
        if marker == 0xC4 and not _sound_huffman(segment):
            return Structure("damaged", "wrong Huffman table")
        position = end
        if marker == 0xDA:
            following = _AFTER_SCAN.search(content, end)
            if following is None:
                return Structure("truncated", "no end mark")
            position, scans = following.start(), scans + 1
    return Structure("truncated", "no end mark" if scans else "no pixels")


def _sound_quantisation(segment: bytes) -> bool:
    """Returns whether a segment holds whole quantisation tables without a divisor of 0 (ITU-T T.81, B.2.4.1)."""
    while segment:
        precision, size = segment[0] >> 4, 1 + 64 * (1 + (segment[0] >> 4))
        divisors = np.frombuffer(segment[1:size], ">u2" if precision else np.uint8) if len(segment) >= size else None
        if precision > 1 or segment[0] & 15 > 3 or divisors is None or not divisors.all():
            return False
        segment = segment[size:]
    return True


def _sound_huffman(segment: bytes) -> bool:
    """Returns whether a segment holds whole Huffman tables that name each symbol once (ITU-T T.81, B.2.4.2)."""
    while segment:
        counts = segment[1:17]
        symbols = segment[17 : 17 + sum(counts)]
        if segment[0] >> 4 > 1 or segment[0] & 15 > 3 or len(counts) < 16 or len(symbols) < sum(counts):
            return False
        if len(set(symbols)) < len(symbols):
            return False
        segment = segment[17 + len(symbols) :]
    return True


def decode_jpeg(
    content: bytes, colours: str, factor: int = 1
) -> tuple[UInt8[np.ndarray, "height width channels"], bool]:
    """Decodes a JPEG, and accepts no warning of the decoder but one of a few bytes too many.

    Args:
        content: the file.
        colours: "RGB", or "CMYK" for a file of such colours.
        factor: 1, 2, 4 or 8, by which height and width are divided while decoding.

    Returns:
        The pixels, and whether there were bytes too many before a marker.

    Raises:
        ValueError: the data is damaged or ends too early; the text is the decoder's.
    """
    height, width = simplejpeg.decode_jpeg_header(content)[:2]
    size = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}

    def decode(data: bytes) -> np.ndarray:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, colours, strict=True, **size)
        return pixels

    try:
        return decode(content), False
    except ValueError as error:
        complaint = str(error)
    for _ in range(_SCANS):
        described = _EXTRANEOUS.search(complaint)
        if described is None or int(described[1]) > _FEW_BYTES:
            break
        count, marker = int(described[1]), int(described[2], 16)
        before = complaint
        for position in _scan_ends(content, marker):
            shorter = content[: position - count] + content[position:]
            try:
                return decode(shorter), True
            except ValueError as error:
                if str(error) != before:  # this one is mended; there may be others
                    content, complaint = shorter, str(error)
                    break
        else:
            break
    raise ValueError(complaint)


def _scan_ends(content: bytes, marker: int) -> list[int]:
    """Returns where the pixels of each scan end that a marker follows."""
    ends, position = [], len(JPEG)
    while position + 4 <= len(content):
        if content[position + 1] == 0xFF:
            position += 1
            continue
        is_scan = content[position + 1] == 0xDA
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if is_scan:
            following = _AFTER_SCAN.search(content, position)
            if following is None:
                break
            position = following.start()
            if content[following.end() - 1] == marker:
                ends.append(position)
    return ends
