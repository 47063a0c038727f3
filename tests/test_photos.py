"""Photos come out as upright RGB, whatever they were."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from deskpro_jax.data import image_report, images
from deskpro_jax.data.images import UnreadableError, as_stored, decode, open_photo, read_photo

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 3), np.uint8)


def test_files_images_and_arrays_give_the_same_pixels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "p.png")
    for photo in (tmp_path / "p.png", str(tmp_path / "p.png"), Image.fromarray(PIXELS), PIXELS):
        np.testing.assert_array_equal(np.asarray(read_photo(photo)), PIXELS)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "p.tif")
    assert read_photo(tmp_path / "p.tif").mode == "RGB"
    np.testing.assert_array_equal(np.asarray(read_photo(image)), expected)
    np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "p.tif")), expected)


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by a quarter
    Image.fromarray(np.rot90(PIXELS)).save(tmp_path / "p.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "p.png")), PIXELS)


def test_a_file_that_is_no_photo_says_why(tmp_path: Path) -> None:
    Image.fromarray(np.tile(PIXELS, (40, 40, 1))).save(tmp_path / "p.jpg")
    content = (tmp_path / "p.jpg").read_bytes()
    for name, damaged, reason in (
        ("cut.jpg", content[: len(content) // 2], "ends before its last pixel"),
        ("empty.jpg", b"", "no bytes"),
        ("text.jpg", b"hello", "none of JPEG"),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UnreadableError, match=reason):
            read_photo(tmp_path / name)
    with pytest.raises(UnreadableError, match=r"can't be read \(No such file.*replace"):
        read_photo(tmp_path / "absent.jpg")
    with pytest.raises(UnreadableError, match="directory"):
        read_photo(tmp_path)


def stray(content: bytes, count: int) -> bytes:
    """Returns a JPEG with bytes too many before its end mark."""
    return content[:-2] + bytes(range(17, 17 + count)) + content[-2:]


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, order: str, kind: str) -> None:
    grey = PIXELS[..., 0]
    values = grey.astype(order) * np.uint16(257)
    expected = np.repeat(grey[..., None], 3, 2)
    Image.fromarray(values).save(tmp_path / f"p.{kind}")
    photo = open_photo(tmp_path / f"p.{kind}")
    np.testing.assert_array_equal(np.asarray(photo.image), expected)
    assert "16_bit" in photo.report.remarks
    np.testing.assert_array_equal(np.asarray(read_photo(Image.fromarray(values))), expected)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bits_are_refused_by_name(tmp_path: Path, dtype: type) -> None:
    image = Image.fromarray(PIXELS[..., 0].astype(dtype))
    image.save(tmp_path / "p.tif")
    words = "32-bit floats" if dtype is np.float32 else "32-bit integers"
    for photo in (image, tmp_path / "p.tif"):
        with pytest.raises(UnreadableError, match=rf"other than 8 or 16 bits per channel \(mode ., {words}\): convert"):
            read_photo(photo)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "I;16"])
def test_what_is_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    opaque = np.arange(96).reshape(12, 8) % 3 > 0
    grey = np.where(opaque, PIXELS[..., 0] // 2, 201).astype(np.uint8)
    image, options = Image.fromarray(grey), {}
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    elif mode == "I;16":
        image, options = Image.fromarray(grey.astype(np.uint16) * 257), {"transparency": 201 * 257}
    else:
        image = image.convert(mode)
        key = 201 if mode == "L" else (201, 201, 201)
        options = {"transparency": image.getpixel((0, 0)) if mode == "P" else key}
    image.save(tmp_path / "p.png", **options)
    photo = open_photo(tmp_path / "p.png")
    np.testing.assert_array_equal(np.asarray(photo.image)[..., 0], np.where(opaque, grey, 255))
    assert "transparent" in photo.report.remarks


def test_the_first_frame_is_used(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((12, 8, 3), value, np.uint8)) for value in (0, 255)]
    for kind in ("gif", "png", "tif", "webp"):
        frames[0].save(tmp_path / f"p.{kind}", save_all=True, append_images=frames[1:])
        photo = open_photo(tmp_path / f"p.{kind}")
        assert np.asarray(photo.image).max() < 3, kind
        assert "animated" in photo.report.remarks


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_bytes_that_do_no_harm_are_a_remark(tmp_path: Path, options: dict) -> None:
    Image.fromarray(np.tile(PIXELS, (8, 8, 1))).save(tmp_path / "p.jpg", quality=90, **options)
    content = (tmp_path / "p.jpg").read_bytes()
    expected = np.asarray(read_photo(tmp_path / "p.jpg"))
    filled = content[:2] + b"\xff" * 5 + content[2:-2] + b"\xff" * 3 + content[-2:]
    for changed in (filled, *(stray(content, count) for count in (1, 2, 3, 5, 8)), content + b"ftyp" * 2500):
        (tmp_path / "p.jpg").write_bytes(changed)
        np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "p.jpg")), expected)
    for harmful in (stray(content, 40), content[: len(content) // 2] + content[-2:], content[:-200]):
        (tmp_path / "p.jpg").write_bytes(harmful)
        with pytest.raises(UnreadableError, match="is not a readable image"):
            read_photo(tmp_path / "p.jpg")


def test_tiffs_are_turned_once(tmp_path: Path) -> None:
    for orientation, turns in ((6, 1), (8, 3), (3, 2)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.rot90(PIXELS, turns)).save(tmp_path / "p.tif", exif=exif)
        photo = open_photo(tmp_path / "p.tif")
        np.testing.assert_array_equal(np.asarray(photo.image), PIXELS)
        assert photo.report.upright_size == PIXELS.shape[:2]


def test_large_photos_are_read_at_a_fraction_of_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_report, "FULL_PIXELS", 20_000)
    smooth = Image.fromarray(PIXELS[::4, ::4]).resize((403, 301), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, options in (("jpg", {"quality": 95, "subsampling": 0}), ("png", {}), ("webp", {"lossless": True})):
        smooth.save(tmp_path / f"p.{kind}", exif=exif, **options)
        photo = open_photo(tmp_path / f"p.{kind}")
        assert photo.report.reduction == 4
        assert photo.report.upright_size == (403, 301)
        assert photo.report.read_size == (101, 76) == photo.image.size[::-1]
        assert "reduced" in photo.report.remarks
        expected = np.asarray(smooth.transpose(Image.Transpose.ROTATE_270).resize((76, 101), Image.Resampling.BOX))
        assert np.abs(np.asarray(photo.image).astype(int) - expected).mean() < 3
        stored = as_stored(photo.content, photo.report)
        np.testing.assert_array_equal(np.asarray(decode(stored)), np.asarray(photo.image))
    smooth.save(tmp_path / "upright.jpg")
    photo = open_photo(tmp_path / "upright.jpg")
    assert as_stored(photo.content, photo.report) == photo.content
    np.testing.assert_array_equal(np.asarray(decode(photo.content)), np.asarray(photo.image))


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_names_what_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brand: bytes) -> None:
    monkeypatch.setattr(images, "has_heic_reader", lambda: False)
    (tmp_path / "p.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + brand + bytes(100))
    with pytest.raises(UnreadableError, match=r"HEIC photo.*install 'deskpro_jax\[heic\]'"):
        read_photo(tmp_path / "p.jpg")


def test_heic_is_read_where_its_library_is_installed(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    smooth = Image.fromarray(PIXELS[::4, ::4]).resize((64, 96), Image.Resampling.BICUBIC)
    pillow_heif.from_pillow(smooth).save(tmp_path / "p.heic", quality=95, chroma=444)
    photo = open_photo(tmp_path / "p.heic")
    assert np.abs(np.asarray(photo.image).astype(int) - np.asarray(smooth)).mean() < 5
    with Image.open(io.BytesIO(as_stored(photo.content, photo.report))) as stored:
        assert stored.format == "PNG"


def test_a_png_may_say_its_orientation_behind_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(PIXELS)).save(tmp_path / "p.png", exif=exif)
    content = (tmp_path / "p.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    (tmp_path / "p.png").write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])
    photo = open_photo(tmp_path / "p.png")
    np.testing.assert_array_equal(np.asarray(photo.image), PIXELS)
    assert photo.report.upright_size == PIXELS.shape[:2]
    np.testing.assert_array_equal(np.asarray(decode(as_stored(photo.content, photo.report))), PIXELS)
    # Pixels are decoded in many threads at once: nothing but headers is read under the lock.
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: pytest.fail("decoded under the lock"))
    with images._open(content, ("PNG",), 8)[0]:
        pass
    with images._open((tmp_path / "p.png").read_bytes(), ("PNG",), 8)[0]:
        pass


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_any_sampling_are_read(
    tmp_path: Path, mode: str, subsampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """simplejpeg does not know every sampling that Pillow writes."""
    image = Image.fromarray(PIXELS).resize((64, 96), Image.Resampling.BICUBIC).convert(mode)
    image.save(tmp_path / "p.jpg", subsampling=subsampling)
    with Image.open(tmp_path / "p.jpg") as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "p.jpg")), expected)
    monkeypatch.setattr(image_report, "FULL_PIXELS", 2000)
    photo = open_photo(tmp_path / "p.jpg")
    assert photo.image.size == (32, 48)
    np.testing.assert_array_equal(np.asarray(decode(as_stored(photo.content, photo.report))), np.asarray(photo.image))
