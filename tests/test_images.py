"""Every kind of finding is found, sound images of every kind pass, and no damage gets by that can be known."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deskpro_jax.data import image_report
from deskpro_jax.data.image_report import KINDS
from deskpro_jax.data.images import as_stored, decode_upright, inspect_image


def photo(height: int = 32, width: int = 16, seed: int = 0) -> Image.Image:
    """Returns coloured noise, coarse enough to survive JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Returns the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    """Returns a JPEG whose EXIF asks for a turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(photo(), quality=95, exif=exif.tobytes())


def png_of_size(width: int, height: int) -> bytes:
    """Returns a PNG whose header claims a size; it has no pixels to go with it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JPEG = encode(photo())
PNG = encode(photo(), "PNG")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"])
def test_sound_images_of_every_format_are_usable(kind: str) -> None:
    report = inspect_image(encode(photo(), kind))
    assert report.usable
    assert (report.width, report.height, report.format, report.frames, report.orientation) == (16, 32, kind, 1, 1)
    assert report.remarks == ()


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"quality": 5}, {"optimize": True}])
def test_jpegs_of_every_make_are_usable(options: dict[str, Any]) -> None:
    assert inspect_image(encode(photo(48, 20), **options)) == image_report.ImageReport(20, 48, "RGB", "JPEG", 1, 1)


def test_bytes_after_the_end_do_no_harm() -> None:
    for content in (JPEG, PNG):
        for excess in (b"\0" * 100, b"made by a camera", content):
            report = inspect_image(content + excess)
            assert report.usable
            assert report.remarks == ("excess",)


@pytest.mark.parametrize(
    ("problem", "content"),
    [
        ("zero_size", b""),
        ("zero_size", png_of_size(0, 5)),
        ("unreadable", b"<html>404</html>"),
        ("unreadable", b"\0" * 1000),
        ("unreadable", b"PK\x03\x04" + b"\1" * 100),
        ("unreadable", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("truncated", JPEG[:-1]),
        ("truncated", JPEG[: len(JPEG) // 2]),
        ("truncated", JPEG[:30]),
        ("truncated", JPEG[:2]),
        ("truncated", PNG[:-1]),
        ("truncated", PNG[: len(PNG) // 2]),
        ("truncated", PNG[:20]),
        ("truncated", encode(photo(), "BMP")[:-50]),
        ("truncated", encode(photo(64, 32), quality=95)[:1500] + b"\0" * 500),
        ("zero_size", JPEG.replace(b"\x08\x00\x20\x00\x10", b"\x08\x00\x00\x00\x10")),
        ("damaged", JPEG[:2] + b"\1" + JPEG[2:]),
        ("damaged", PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:]),
        ("damaged", encode(photo(64, 32), quality=95)[:1500] + JPEG[-2:]),
        ("huge", png_of_size(20_000, 20_000)),
        ("huge", png_of_size(10_000, 10_001)),
        ("too_small", encode(photo().resize((7, 40)), "PNG")),
        ("too_small", encode(photo().resize((40, 1)))),
        ("bit_depth", encode(Image.fromarray(np.zeros((9, 9), np.int32)), "TIFF")),
        ("bit_depth", encode(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF")),
    ],
)
def test_what_makes_an_image_unusable_is_named(problem: str, content: bytes) -> None:
    report = inspect_image(content)
    assert report.problems == (problem,)
    assert report.detail
    assert KINDS[problem].fatal
    assert KINDS[problem].text in report.describe()
    assert KINDS[problem].remedy in report.describe()


@pytest.mark.parametrize(
    ("remarks", "content"),
    [
        (("grey",), encode(photo().convert("L"))),
        (("grey",), encode(photo().convert("L").convert("RGB"))),
        (("grey",), encode(photo().convert("1"), "PNG")),
        (("cmyk",), encode(photo().convert("CMYK"))),
        (("exif_rotated",), turned(6)),
        (("transparent",), encode(photo().convert("RGBA"), "PNG")),
        (("grey", "transparent"), encode(photo().convert("LA"), "PNG")),
        ((), encode(photo().convert("P"), "PNG")),
        ((), turned(1)),
        (("animated",), encode(photo(), "GIF", save_all=True, append_images=[photo(seed=1)])),
        (("animated",), encode(photo(), "PNG", save_all=True, append_images=[photo(seed=1)])),
        (("animated",), encode(photo(), "WEBP", save_all=True, append_images=[photo(seed=1)])),
        (("animated",), encode(photo(), "TIFF", save_all=True, append_images=[photo(seed=1)])),
        (("16_bit", "grey"), encode(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG")),
        (("reduced", "grey"), encode(Image.new("L", (4097, 4096)), "PNG")),
    ],
)
def test_what_is_worth_knowing_is_remarked(remarks: tuple[str, ...], content: bytes) -> None:
    report = inspect_image(content)
    assert report.usable
    assert report.remarks == remarks
    assert not any(KINDS[name].fatal for name in remarks)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_stored_upright(orientation: int) -> None:
    content = turned(orientation)
    report = inspect_image(content)
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
    turns = {1: 0, 3: 2, 6: 3, 8: 1}  # quarters counter-clockwise
    mirrored = {2: 0, 4: 2, 5: 1, 7: 3}
    upright = np.rot90(pixels, turns[orientation]) if orientation in turns else pixels[:, ::-1]
    if orientation in mirrored:
        upright = np.rot90(upright, mirrored[orientation])
    stored = as_stored(content, report)
    assert np.array_equal(decode_upright(content), upright)
    assert np.array_equal(decode_upright(stored), upright)
    assert report.upright_size == upright.shape[:2]
    assert (stored == content) == (orientation == 1)
    assert inspect_image(stored).orientation == 1


def test_only_rgb_and_grey_files_are_stored_as_they_are() -> None:
    for image, kind in ((photo(), "JPEG"), (photo().convert("L"), "JPEG"), (photo(), "BMP")):
        content = encode(image, kind)
        assert as_stored(content, inspect_image(content)) is content
    for mode, kind in (("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG")):
        content = encode(photo().convert(mode), kind)
        with Image.open(io.BytesIO(as_stored(content, inspect_image(content)))) as image:
            assert image.mode == "RGB"
            assert np.array_equal(np.asarray(image), decode_upright(content))


def test_every_flipped_bit_of_a_png_is_found() -> None:
    for position in range(len(PNG)):
        broken = bytearray(PNG)
        broken[position] ^= 1 << (position % 8)
        assert not inspect_image(bytes(broken)).usable, position


def test_every_cut_is_found() -> None:
    for content in (JPEG, PNG):
        for length in range(len(content)):
            assert inspect_image(content[:length]).problems in (("truncated",), ("unreadable",), ("zero_size",))


def test_damage_that_pillow_decodes_in_silence_is_found() -> None:
    """A burst of wrong bytes in the pixels of a JPEG: Pillow shows garbage without an error."""
    content = encode(photo(64, 32), quality=95)
    rng = np.random.default_rng(0)
    silent = 0
    for start in rng.integers(len(content) * 2 // 3, len(content) - 60, 50):
        broken = content[:start] + rng.integers(0, 255, 50, np.uint8).tobytes() + content[start + 50 :]
        with Image.open(io.BytesIO(broken)) as image:
            try:
                image.load()
                silent += 1
            except OSError:
                pass
        assert not inspect_image(broken).usable, start
    assert silent > 10
