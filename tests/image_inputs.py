"""Image files as people have them on disk, sound and not: single kinds, and any number of combinations of kinds."""

from __future__ import annotations

import io
import struct
import unicodedata
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, features

SUFFIXES = {
    "JPEG": (".jpg", ".JPG", ".jpeg", ".jfif", ".jpe"),
    "PNG": (".png", ".PNG"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".TIFF"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "MPO": (".mpo", ".jpg"),
    "AVIF": (".avif",),
}
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "LA", "RGBA", "P", "1", "I;16", "RGB;16"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F"),
    "GIF": ("P", "L", "RGB", "RGBA"),
    "BMP": ("RGB", "L", "P", "1"),
    "MPO": ("RGB",),
    "AVIF": ("RGB", "RGBA"),
}
SIZES = (
    (64, 128),
    (48, 96),
    (97, 61),
    (8, 8),
    (8, 300),
    (300, 9),
    (20, 3000),
    (3000, 10),
    (7, 40),
    (40, 7),
    (1, 1),
    (1, 90),
)
LARGE = ((4200, 4100), (9000, 2000))  # of more than `image_report.FULL_PIXELS`, which take a second each
STEMS = (
    "a",
    "two words",
    "100%",
    "#1",
    "it's",
    'say "x"',
    "été",
    "Å",
    "写真",
    "фото",
    "a.b.c",
    "x" * 120,
    "-v",
    "a;b&c",
    "ü" * 40,
)
ANIMATED = ("PNG", "WEBP", "TIFF", "GIF")


class ImageInput(NamedTuple):
    """A file.

    Attributes:
        name: of the file, with its suffix.
        content: its bytes.
    """

    name: str
    content: bytes


def draw(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    """Returns a smooth picture of a mode, with some transparent pixels where the mode has them."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (5, 4, 3), np.uint8)
    image = Image.fromarray(colours).resize(size, Image.Resampling.BILINEAR)
    if mode in ("I;16", "I;16B", "RGB;16"):
        order = ">u2" if mode == "I;16B" else "<u2"
        return Image.fromarray((np.asarray(image.convert("L")).astype(np.uint16) * 257).astype(order))
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(rng.integers(0, 256, (5, 4), np.uint8)).resize(size))
        return image
    if mode in ("I", "F"):
        return image.convert("L").convert(mode)
    if mode == "LAB":
        return Image.frombytes("LAB", size, image.tobytes())
    return image.convert(mode)


def encode(image: Image.Image, kind: str, frames: list[Image.Image] | None = None, **options: object) -> bytes:
    """Returns the bytes of an image file."""
    buffer = io.BytesIO()
    if frames:
        options |= {"save_all": True, "append_images": frames}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png16(size: tuple[int, int], seed: int, *chunks: bytes) -> bytes:
    """Returns an RGB PNG of 16 bits per channel, which Pillow cannot write."""
    pixels = np.asarray(draw("RGB", size, seed)).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 16, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def stray(content: bytes, count: int) -> bytes:
    """Returns a JPEG with bytes too many before its end mark."""
    return content[:-2] + bytes(range(17, 17 + count)) + content[-2:]


def burst(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns a file with 50 wrong bytes in its last third."""
    start = int(rng.integers(len(content) * 2 // 3, max(len(content) * 2 // 3 + 1, len(content) - 60)))
    return content[:start] + rng.integers(0, 255, 50, np.uint8).tobytes() + content[start + 50 :]


def _damages() -> dict[str, Callable[[bytes, np.random.Generator], bytes]]:
    return {
        "none": lambda content, rng: content,
        "excess": lambda content, rng: content + bytes(10_000),
        "stray": lambda content, rng: stray(content, int(rng.integers(1, 6))),
        "fill": lambda content, rng: content[:2] + b"\xff" * 4 + content[2:],
        "cut": lambda content, rng: content[: int(rng.integers(0, len(content)))],
        "burst": burst,
        "flip": lambda content, rng: _flipped(content, rng),
        "empty": lambda content, rng: b"",
        "text": lambda content, rng: b"<html>404</html>",
    }


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for position in rng.integers(0, len(changed), 3):
        changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def combined(count: int, seed: int = 0, large_every: int = 100) -> list[ImageInput]:
    """Draws files that combine format, mode, depth, orientation, frames, suffix, name, size and damage.

    Args:
        count: how many.
        seed: decides which.
        large_every: one in so many has more than 16.8 megapixels; 0 for none.
    """
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in SUFFIXES if kind != "AVIF" or features.check("avif")]
    return [_combine(number, rng, kinds, large_every > 0 and number % large_every == 1) for number in range(count)]


def _combine(number: int, rng: np.random.Generator, kinds: list[str], large: bool) -> ImageInput:
    kind = str(rng.choice(kinds))
    mode = str(rng.choice(MODES[kind]))
    sizes = LARGE if large else SIZES if rng.random() < 0.6 else SIZES[:1]
    if kind == "AVIF":  # whose writer crashes on odd sizes
        sizes = SIZES[:2]
    size = sizes[int(rng.integers(len(sizes)))]
    exif = Image.Exif()
    if rng.random() < 0.5:
        exif[0x0112] = int(rng.integers(0, 11))  # some that no EXIF has
    options: dict[str, object] = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    if kind == "JPEG":
        options["progressive"] = bool(rng.random() < 0.3)
    if mode in ("P", "L", "1") and kind in ("PNG", "GIF") and rng.random() < 0.4:
        options["transparency"] = 0
    if mode in ("I;16", "RGB") and kind == "PNG" and rng.random() < 0.3:
        options["transparency"] = 257 if mode == "I;16" else (1, 2, 3)
    image = draw(mode, size, number)
    frames = [draw(mode, size, number + 1)] if kind == "MPO" or (kind in ANIMATED and rng.random() < 0.25) else None
    if mode == "RGB;16":
        content = png16(size, number)
    else:
        try:
            content = encode(image, kind, frames, **options)
        except (OSError, ValueError, SystemError):  # a format that does not take these together
            content = encode(image, kind)
    damages = _damages()
    possible = ["none"] * 8 + [name for name in damages if kind == "JPEG" or name not in ("stray", "fill", "burst")]
    content = damages[str(rng.choice(possible))](content, rng)
    stem = unicodedata.normalize(str(rng.choice(["NFC", "NFD"])), str(rng.choice(STEMS)))
    wrong = rng.random() < 0.15  # suffixes lie
    suffixes = SUFFIXES[str(rng.choice(kinds)) if wrong else kind]
    return ImageInput(f"{number:05d} {stem}{rng.choice(suffixes)}", content)


def single() -> dict[str, tuple[ImageInput, str]]:
    """Returns files of one kind each, with the problem that every command is to name ("" where all of them take it)."""
    rng = np.random.default_rng(7)
    size = (64, 128)
    photo, other = draw("RGB", size, 1), draw("RGB", size, 2)
    jpeg, turned = encode(photo, "JPEG", quality=90), Image.Exif()
    turned[0x0112] = 6
    heic = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(200)
    files: dict[str, tuple[str, bytes, str]] = {
        "8-bit grey PNG": ("grey8.png", encode(draw("L", size, 1), "PNG"), ""),
        "16-bit grey PNG": ("grey16.png", encode(draw("I;16", size, 1), "PNG"), ""),
        "16-bit grey TIFF": ("deep.tif", encode(draw("I;16B", size, 1), "TIFF"), ""),
        "16-bit colour PNG": ("colour16.png", png16(size, 1), ""),
        "32-bit integers": ("integers.tif", encode(draw("I", size, 1), "TIFF"), "bit_depth"),
        "32-bit floats": ("floats.tiff", encode(draw("F", size, 1), "TIFF"), "bit_depth"),
        "animated WebP": ("animated.webp", encode(photo, "WEBP", [other]), ""),
        "animated GIF": ("moving.gif", encode(photo, "GIF", [other]), ""),
        "APNG": ("apng.png", encode(photo, "PNG", [other]), ""),
        "multi-page TIFF": ("pages.tif", encode(photo, "TIFF", [other]), ""),
        "JPEG with previews": ("previews.jpg", encode(photo, "MPO", [other]), ""),
        "2 stray bytes": ("stray2.jpg", stray(jpeg, 2), ""),
        "3 stray bytes": ("stray3.jpg", stray(jpeg, 3), ""),
        "motion photo": ("motion.jpg", jpeg + b"ftypmp42" * 1250, ""),
        "fill bytes": ("fill.jpg", jpeg[:2] + b"\xff" * 3 + jpeg[2:-2] + b"\xff" * 2 + jpeg[-2:], ""),
        "JPEG cut short": ("cut.jpg", jpeg[: len(jpeg) // 2], "truncated"),
        "broken entropy data": (
            "burst.jpg",
            burst(encode(draw("RGB", (256, 512), 3), "JPEG", quality=95), rng),
            "damaged",
        ),
        "PNG cut short": ("short.png", encode(photo, "PNG")[:-20], "truncated"),
        "24 megapixels": ("large.jpg", encode(draw("RGB", (4000, 6000), 1), "JPEG", quality=60), ""),
        "more than 100 megapixels": ("huge.png", png_header(10_000, 10_001), "huge"),
        "upper-case suffix": ("a.JPG", jpeg, ""),
        ".jfif": ("b.jfif", jpeg + b"b", ""),
        ".jpe": ("f.jpe", jpeg + b"f", ""),
        "HEIC": ("iphone.jpg", heic, "heic"),
        "transparent PNG": ("transparent.png", encode(draw("RGBA", size, 1), "PNG"), ""),
        "transparent colour": ("colour.png", encode(draw("P", size, 1), "PNG", transparency=0), ""),
        "1 pixel": ("pixel.png", encode(draw("RGB", (1, 1), 1), "PNG"), "too_small"),
        "7 x 300": ("thin.jpg", encode(draw("RGB", (7, 300), 1), "JPEG"), "too_small"),
        "3000 x 20": ("wide.jpg", encode(draw("RGB", (3000, 20), 1), "JPEG"), ""),
        "10 x 3000": ("tall.png", encode(draw("RGB", (10, 3000), 1), "PNG"), ""),
        "turned by EXIF": ("turned.jpg", encode(photo, "JPEG", exif=turned), ""),
        "TIFF turned by EXIF": ("upright.tif", encode(photo, "TIFF", exif=turned), ""),
        "CMYK": ("print.jpg", encode(draw("CMYK", size, 1), "JPEG"), ""),
        "one bit": ("bit.png", encode(draw("1", size, 1), "PNG"), ""),
        "another suffix than its content": ("webp.jpg", encode(other, "WEBP"), ""),
        "empty file": ("empty.jpg", b"", "zero_size"),
        "web page": ("page.jpg", b"<html>404</html>", "unreadable"),
        "decomposed name": (unicodedata.normalize("NFD", "\u00e9t\u00e9 #1 100%.jpg"), jpeg + b"n", ""),
    }
    if features.check("avif"):
        files["AVIF"] = ("d.avif", encode(photo, "AVIF"), "")
    return {kind: (ImageInput(name, content), problem) for kind, (name, content, problem) in files.items()}
