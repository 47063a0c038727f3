"""A canvas whose colours and part labels are painted by the same call, and the outlines drawn on it."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Paint = Colour | Image.Image  # one colour, or a texture as large as the canvas

_CATMULL_ROM = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]], np.float64)


class Canvas:
    """A colour image with the label map of the same size.

    Args:
        colour: RGB image that is painted on (changed in place).
        label: label of every pixel at the start, or a label map to go on painting (changed in place).
        scale: pixels a drawing unit.
        origin: pixel (x, y) where the drawing's (0, 0) lies.
        angle: clockwise turn of the drawing around its origin, radians.
    """

    def __init__(
        self,
        colour: Image.Image,
        label: int | Image.Image,
        scale: float = 1.0,
        origin: tuple[float, float] = (0.0, 0.0),
        angle: float = 0.0,
    ):
        self.colour = colour
        self.labels = Image.new("L", colour.size, label) if isinstance(label, int) else label
        self._colour_pen = ImageDraw.Draw(colour, "RGBA")  # RGBA pens blend, so shadows can be painted thinly
        self._label_pen = ImageDraw.Draw(self.labels)
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        self._matrix = np.array([[cos, sin], [-sin, cos]])
        self._origin = np.asarray(origin, np.float64)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Maps drawing coordinates [n, 2] to pixel coordinates [n, 2]."""
        return np.asarray(points, np.float64) @ self._matrix + self._origin

    def fill(self, points: np.ndarray, paint: Paint, label: int) -> None:
        """Fills an outline with a paint and, on the very same pixels, its label.

        Args:
            points: outline [n, 2], drawing coordinates.
            paint: colour or texture.
            label: part label.
        """
        pixels = self.to_pixels(points)
        if not isinstance(paint, Image.Image):
            flat = pixels.ravel().tolist()
            self._colour_pen.polygon(flat, fill=paint)
            self._label_pen.polygon(flat, fill=label)
            return
        low = np.floor(pixels.min(axis=0)).astype(int) - 1
        high = np.ceil(pixels.max(axis=0)).astype(int) + 2
        left, top = (int(v) for v in np.maximum(low, 0))
        right, bottom = (int(v) for v in np.minimum(high, self.colour.size))
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left, bottom - top), 0)
        ImageDraw.Draw(mask).polygon((pixels - (left, top)).ravel().tolist(), fill=255)
        box = (left, top, right, bottom)
        self.colour.paste(paint.crop(box), box, mask)
        self.labels.paste(label, box, mask)

    def shade(self, points: np.ndarray, colour: Colour, opacity: float) -> None:
        """Blends a colour over an outline [n, 2] without touching the labels; opacity 0 to 1."""
        self._colour_pen.polygon(self.to_pixels(points).ravel().tolist(), fill=(*colour, round(255 * opacity)))

    def stroke(self, points: np.ndarray, colour: Colour, width: float, opacity: float = 1.0) -> None:
        """Draws an open line [n, 2] of a width in pixels over the colours alone."""
        flat = self.to_pixels(points).ravel().tolist()
        self._colour_pen.line(flat, fill=(*colour, round(255 * opacity)), width=max(1, round(width)), joint="curve")


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, count: int = 28) -> np.ndarray:
    """Returns the outline [count, 2] of an ellipse around (x, y) with radii rx, ry, turned by `angle` radians."""
    t = np.linspace(0.0, 2 * math.pi, count, endpoint=False)
    px, py = rx * np.cos(t), ry * np.sin(t)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([x + px * cos - py * sin, y + px * sin + py * cos], axis=1)


def smooth(points: np.ndarray, steps: int = 6, closed: bool = True) -> np.ndarray:
    """Returns a Catmull-Rom curve through points [n, 2], with `steps` points a span."""
    points = np.asarray(points, np.float64)
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([points[:1], points, points[-1:]])
    around = np.stack([padded[k : len(padded) - 3 + k] for k in range(4)])
    t = np.arange(steps) / steps
    basis = np.stack([t**0, t, t**2, t**3], axis=1) @ _CATMULL_ROM  # [steps, 4]
    curve = np.einsum("sk,knd->nsd", basis, around).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def limb(start: np.ndarray, end: np.ndarray, r0: float, r1: float) -> np.ndarray:
    """Returns the outline of a limb: a tapered bar from start to end with round ends of radii r0 and r1."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = math.atan2(dy, dx)
    t = np.linspace(-math.pi / 2, math.pi / 2, 8)
    head = np.stack([end[0] + r1 * np.cos(along + t), end[1] + r1 * np.sin(along + t)], axis=1)
    tail = np.stack([start[0] + r0 * np.cos(along + math.pi + t), start[1] + r0 * np.sin(along + math.pi + t)], axis=1)
    return np.concatenate([head, tail])


def mirrored(right: np.ndarray) -> np.ndarray:
    """Returns a closed outline from its right half [n, 2], top to bottom, mirrored at x = 0."""
    right = np.asarray(right, np.float64)
    return np.concatenate([right, (right * (-1.0, 1.0))[::-1]])


def darker(colour: Colour, factor: float) -> Colour:
    """Returns a colour times a factor, clipped to 0 to 255."""
    return (
        min(255, round(colour[0] * factor)),
        min(255, round(colour[1] * factor)),
        min(255, round(colour[2] * factor)),
    )


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """Returns the mix of two colours, `share` (0 to 1) of it the second."""
    r, g, b = (round(p + (q - p) * share) for p, q in zip(first, second, strict=True))
    return (r, g, b)
