"""Backgrounds, and the light that falls on a person."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from deskpro_jax.data.synthetic.pose import HEIGHT, WIDTH


def _tone(rng: np.random.Generator, saturation: float = 0.25) -> tuple[int, int, int]:
    hsv = rng.uniform(), rng.uniform(0, saturation), rng.uniform(0.3, 0.9)
    r, g, b = (round(255 * v) for v in colorsys.hsv_to_rgb(*hsv))
    return (r, g, b)


def _clouds(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Smooth noise [height, width] from 0 to 1."""
    grid = rng.uniform(0, 255, (rows, columns)).astype(np.uint8)
    return np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32) / 255


def draw_background(rng: np.random.Generator) -> Image.Image:
    """Draws a place: a room, a street, a park or a crowd of things, at half the resolution of a canvas.

    Args:
        rng: the image's source of randomness.

    Returns:
        RGB image of 128 x 256 pixels.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), _tone(rng))
    pen = ImageDraw.Draw(image)
    horizon = int(rng.uniform(0.25, 0.85) * HEIGHT)
    kind = rng.integers(4)
    if kind == 2:  # park
        pen.rectangle((0, 0, WIDTH, horizon), fill=(int(rng.uniform(120, 225)), int(rng.uniform(160, 225)), 235))
        green = (int(rng.uniform(40, 130)), int(rng.uniform(80, 170)), int(rng.uniform(30, 90)))
        pen.rectangle((0, horizon, WIDTH, HEIGHT), fill=green)
        for _ in range(rng.integers(2, 7)):
            x, y, r = rng.uniform(0, WIDTH), horizon - rng.uniform(0, 90), rng.uniform(12, 40)
            pen.rectangle((x - 2, y, x + 2, horizon + 4), fill=(70, 52, 38))
            pen.ellipse((x - r, y - r, x + r, y + r), fill=(green[0] // 2 + 15, green[1] // 2 + 30, green[2] // 2))
    else:
        pen.rectangle((0, horizon, WIDTH, HEIGHT), fill=_tone(rng, 0.3))
        for _ in range(rng.integers(3, 8 if kind < 2 else 26)):
            w, h = rng.uniform(6, 60), rng.uniform(10, 120)
            x, y = rng.uniform(-20, WIDTH), rng.uniform(-20, horizon if kind < 2 else HEIGHT)
            pen.rectangle((x, y, x + w, y + h), fill=_tone(rng, 0.3))
        if kind == 0:
            colour, step = _tone(rng), int(rng.integers(6, 24))
            for x in range(int(rng.integers(step)), WIDTH, step):
                pen.line((x, 0, x, horizon), fill=colour)
        if kind == 1:
            for y in range(horizon, HEIGHT, 14):
                pen.line((0, y, WIDTH, y), fill=_tone(rng, 0.2))
    image = image.filter(ImageFilter.BoxBlur(rng.uniform(1.5, 5.0)))  # what is behind a person is out of focus
    pixels: np.ndarray = np.asarray(image, np.float32)
    pixels = (
        pixels * (0.8 + 0.4 * _clouds(rng, 9, 5))[..., None]
        + rng.uniform(0, 22) * (_clouds(rng, 86, 43) - 0.5)[..., None]
    )
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def light(pixels: np.ndarray, person: np.ndarray, cloth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lets light of one direction fall on a drawn scene.

    Args:
        pixels: float32 [256, 128, 3], 0 to 255.
        person: bool [256, 128], the drawn person.
        cloth: bool [256, 128], clothes, which get folds.
        rng: the image's source of randomness.

    Returns:
        float32 [256, 128, 3], 0 to 255.
    """
    outline = Image.fromarray(np.where(person, 255, 0).astype(np.uint8))
    relief = np.asarray(outline.filter(ImageFilter.BoxBlur(5)).filter(ImageFilter.BoxBlur(4)), np.float32) / 255
    slope_y, slope_x = np.gradient(relief)
    direction = rng.uniform(0, 2 * math.pi)
    strength = rng.uniform(0.4, 1.6)
    relit = 1 - strength * (slope_x * math.cos(direction) + 0.6 * slope_y * math.sin(direction))
    folds = 1 + cloth.astype(np.float32) * (rng.uniform(0.15, 0.55) * (_clouds(rng, 32, 12) - 0.5))
    across = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None, :] * rng.uniform(-0.12, 0.12)
    down = np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, None] * rng.uniform(-0.1, 0.1)
    shade = np.where(person, relit * folds, 1.0) * (1 + across + down)
    return np.clip(pixels * shade[..., None], 0, 255)
