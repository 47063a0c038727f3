"""Draws a sheet of random examples: each photo, and the same with clothing tinted and the faces in its corners."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from deskpro_jax.data.images import decode_image
from deskpro_jax.data.schema import Example
from deskpro_jax.storage.files import atomic_path

HEIGHT, WIDTH, MARGIN, LINE = 256, 128, 8, 14  # pixels
_TINT, _OUTLINE = np.array([255.0, 0.0, 60.0]), np.array([0.0, 255.0, 255.0])
_FACE = 52  # pixels of a face laid over a corner
_COLUMNS = 4
_BACKGROUND, _EMPTY, _INK = (250, 250, 250), (225, 225, 225), (20, 20, 20)


def draw_at_random(
    sizes: Mapping[str, int], load: Callable[[str, int], Example | None], count: int, seed: int
) -> list[tuple[str, Example]]:
    """Draws examples from all splits in turn, as evenly as they go.

    Args:
        sizes: number of images of each split.
        load: returns the image of a split at a position; None, and any error, passes it over.
        count: number of examples.
        seed: decides which.

    Returns:
        Pairs of split and example, at most `count`.
    """
    random = np.random.default_rng(seed)
    orders = {split: iter(random.permutation(size).tolist()) for split, size in sizes.items()}

    def usable(split: str) -> Iterator[tuple[str, Example]]:
        for position in orders[split]:
            try:
                example = load(split, position)
            except Exception:  # whatever is wrong with it was reported when it was examined
                continue
            if example is not None:
                yield split, example

    rounds = itertools.zip_longest(*(usable(split) for split in sizes))
    return list(itertools.islice((pair for row in rounds for pair in row if pair is not None), count))


def write_sheet(path: Path, examples: Sequence[tuple[str, Example]], clothing: Sequence[int]) -> None:
    """Writes the sheet, whole or not at all.

    Args:
        path: a PNG file.
        examples: pairs of split and example.
        clothing: values of the label map that are clothing.
    """
    cell = 2 * WIDTH + MARGIN, HEIGHT + 2 * LINE + MARGIN
    columns = max(1, min(_COLUMNS, len(examples)))
    rows = max(1, -(-len(examples) // columns))
    size = columns * (cell[0] + MARGIN) + MARGIN, rows * (cell[1] + MARGIN) + MARGIN
    sheet = Image.new("RGB", size, _BACKGROUND)
    for number, (split, example) in enumerate(examples):
        row, column = divmod(number, columns)
        corner = MARGIN + column * (cell[0] + MARGIN), MARGIN + row * (cell[1] + MARGIN)
        sheet.paste(_cell(split, example, clothing, cell), corner)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _cell(split: str, example: Example, clothing: Sequence[int], size: tuple[int, int]) -> Image.Image:
    cell = Image.new("RGB", size, _BACKGROUND)
    photo = _read(example.body)
    shown = ImageOps.contain(photo, (WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    cell.paste(_framed(shown), (0, 0))
    cell.paste(_framed(_overlaid(shown, example, clothing)), (WIDTH + MARGIN, 0))
    pen = ImageDraw.Draw(cell)
    missing = [
        name
        for name, content in (("mask", example.parts), ("face", example.face), ("restored", example.restored_face))
        if content is None
    ]
    labels = f"identity {example.identity}, camera {example.camera}, clothes {example.clothes}"
    pen.text((0, HEIGHT + 2), _fitting(pen, f"{split}/{example.image_id}: {labels}", size[0]), fill=_INK)
    text = f"{photo.width} x {photo.height}" + (f", without {', '.join(missing)}" if missing else "")
    pen.text((0, HEIGHT + 2 + LINE), _fitting(pen, text, size[0]), fill=_INK)
    return cell


def _read(content: bytes) -> Image.Image:
    return decode_image(content)


def _framed(image: Image.Image) -> Image.Image:
    panel = Image.new("RGB", (WIDTH, HEIGHT), _EMPTY)
    panel.paste(image, ((WIDTH - image.width) // 2, (HEIGHT - image.height) // 2))
    return panel


def _overlaid(shown: Image.Image, example: Example, clothing: Sequence[int]) -> Image.Image:
    """Returns the photo with its clothing tinted, the face at the lower left and the restored face at the right."""
    pixels = np.asarray(shown, np.float64)
    if example.parts is not None:
        with Image.open(io.BytesIO(example.parts)) as labels:
            parts = np.asarray(labels.resize(shown.size, Image.Resampling.NEAREST))
        worn = np.isin(parts, list(clothing))
        inside = np.pad(worn, 1, mode="edge")
        inside = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        pixels = np.where(worn[:, :, None], 0.5 * pixels + 0.5 * _TINT, pixels)
        pixels[worn & ~inside] = _OUTLINE  # seen on clothes of the tint's own colour as well
    image = Image.fromarray(pixels.round().astype(np.uint8))
    for content, right in ((example.face, False), (example.restored_face, True)):
        if content is not None:
            face = ImageOps.expand(ImageOps.contain(_read(content), (_FACE, _FACE)), 1, (255, 255, 0))
            image.paste(face, (image.width - face.width if right else 0, image.height - face.height))
    return image


def _fitting(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """Returns the text, its middle left out where it is too long for a width in pixels."""
    text = text.encode("latin-1", "replace").decode("latin-1")  # what the built-in font can write
    kept = len(text)
    short = text
    while pen.textlength(short) > width and kept > 2:
        kept -= 1
        short = f"{text[: kept // 3]}...{text[len(text) - (kept - kept // 3) :]}"
    return short
