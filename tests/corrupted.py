"""Image files that went wrong in every way that a file alone can tell: bit flips, cuts, other types, odd images.

A PNG has few flipped bits, each of which a checksum covers; a JPEG has many, since it has no checksum: a single one
there may leave another valid photo.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image

from author_trees import Photo, draw, encode


def _flip_png(content: dict[str, bytes], rng: np.random.Generator) -> bytes:
    broken = bytearray(content[".png"])
    for position in rng.integers(0, 8 * len(broken), int(rng.integers(1, 4))):
        broken[position // 8] ^= 1 << (position % 8)
    return bytes(broken)


def _flip_jpeg(content: dict[str, bytes], rng: np.random.Generator) -> bytes:
    broken = bytearray(content[".jpg"])
    for position in rng.integers(0, 8 * len(broken), 40):
        broken[position // 8] ^= 1 << (position % 8)
    return bytes(broken)


def _cut(content: dict[str, bytes], rng: np.random.Generator) -> bytes:
    whole = content[str(rng.choice([".jpg", ".png", ".bmp"]))]
    return whole[: int(rng.integers(0, len(whole)))]


def _hole(content: dict[str, bytes], rng: np.random.Generator) -> bytes:
    """A download that reserved the space and stopped."""
    whole = content[str(rng.choice([".jpg", ".png"]))]
    start = int(rng.integers(0, len(whole) - 200))
    return whole[:start] + bytes(len(whole) - start)


def _other_type(content: dict[str, bytes], rng: np.random.Generator) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("photo.jpg", content[".jpg"])
    noise = rng.integers(0, 256, int(rng.integers(1, 3000)), np.uint8).tobytes()
    texts = (b"<!DOCTYPE html><html>404 Not Found</html>", b"version https://git-lfs.github.com/spec/v1\n", b"", b"\n")
    others = (*texts, archive.getvalue(), noise, b"RIFF\0\0\0\0WAVEfmt ", b"%PDF-1.7\n", b"\x7fELF" + noise, bytes(500))
    return others[int(rng.integers(len(others)))]


def _tiny(content: dict[str, bytes], rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    size = (int(rng.integers(1, 8)), int(rng.integers(1, 100)))
    Image.new("RGB", size).save(buffer, str(rng.choice(["GIF", "PNG", "WEBP", "TIFF"])))
    return buffer.getvalue()


def _deep(content: dict[str, bytes], rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    pixels = rng.integers(0, 2**16, (9, 9)).astype(rng.choice([np.int32, np.float32]))
    Image.fromarray(pixels).save(buffer, "TIFF")
    return buffer.getvalue()


_WAYS: tuple[tuple[Callable[[dict[str, bytes], np.random.Generator], bytes], int], ...] = (
    *((_flip_png, 6), (_flip_jpeg, 5), (_cut, 5), (_hole, 1), (_other_type, 1), (_tiny, 1), (_deep, 1)),
)


def corrupted(count: int = 1000, seed: int = 0) -> list[bytes]:
    """Returns the contents of files none of which is a usable image.

    Args:
        count: how many.
        seed: decides which.
    """
    rng = np.random.default_rng(seed)
    ways = [way for way, weight in _WAYS for _ in range(weight)]
    photos = [draw(Photo("train", str(number), number, 1, -1)) for number in range(17)]
    contents = [{suffix: encode(photo, suffix) for suffix in (".jpg", ".png", ".bmp")} for photo in photos]
    return [ways[number % len(ways)](contents[number % len(contents)], rng) for number in range(count)]
