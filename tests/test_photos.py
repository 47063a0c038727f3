"""Photos come out as upright RGB, whatever they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deskpro_jax.data.images import UnreadableError, read_photo

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)


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
        ("cut.jpg", content[: len(content) // 2], "truncated"),
        ("empty.jpg", b"", "an empty file"),
        ("text.jpg", b"hello", "not an image"),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UnreadableError, match=reason):
            read_photo(tmp_path / name)
    with pytest.raises(UnreadableError, match="No such file"):
        read_photo(tmp_path / "absent.jpg")
    with pytest.raises(UnreadableError, match="directory"):
        read_photo(tmp_path)
