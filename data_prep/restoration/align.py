"""Cuts faces out of photos in the frame that the restorer was trained on: bilinear, or with Lanczos' filter."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from deskpro_jax.errors import InputError

# Eyes, nose, corners of the mouth in the 112 x 96 pixels that faces are usually aligned to (x, y).
_POINTS = np.array(
    [
        (30.29459953, 51.69630051),
        (65.53179932, 51.50139999),
        (48.02519989, 71.73660278),
        (33.54930115, 92.3655014),
        (62.72990036, 92.20410156),
    ]
)
_MARGIN = np.array([36.0, 28.0])  # around them, which makes it a square ...
_SIDE = 168.0  # ... of this size
_LANCZOS_RADIUS = 3
FACE_SIZES = (256, 512)  # pixels; those of the published restorers, the first by default
_FARTHEST = 1e6  # pixels; no photo is as large

Kernel = Callable[[np.ndarray], np.ndarray]


def template(size: int) -> Float[np.ndarray, "5 2"]:
    """Returns the positions of eyes, nose and corners of the mouth in an aligned face of `size` pixels, x and y."""
    return (_POINTS + _MARGIN) * (size / _SIDE)


def similarity(landmarks: Float[np.ndarray, "5 2"], size: int) -> Float[np.ndarray, "2 3"]:
    """Finds the rotation, scale and shift that bring landmarks closest to `template(size)`.

    Args:
        landmarks: eyes, nose and corners of the mouth in pixels of the photo, x and y, in the order of `template`.
        size: height and width of the aligned face in pixels.

    Returns:
        The matrix that maps (x, y, 1) in the photo to pixels of the aligned face.

    Raises:
        InputError: the landmarks are not five points of a photo, or all the same point.

    Source:
        Umeyama, PAMI 1991, equations 40 to 42. In float32, as the published code has it: frames agree to the last bit.
    """
    points = np.asarray(landmarks, np.float32)
    if points.shape != (5, 2) or not (np.abs(points) < _FARTHEST).all():
        raise InputError(
            f"landmarks are {points.tolist()}; expected five points (x, y) in pixels: eyes, nose, corners of the mouth."
        )
    if size < 1:
        raise InputError(f"the size of aligned faces is {size}; expected 1 pixel or more.")
    target = template(size).astype(np.float32)
    centred, wanted = points - points.mean(0), target - target.mean(0)
    spread = centred.var(0).sum()
    if spread < 1e-6:
        raise InputError(f"landmarks are {points.tolist()}, which is not a face: its extent is 0.")
    covariance = wanted.T @ centred / len(points)
    mirror = np.ones(2)
    if np.linalg.det(covariance) < 0:
        mirror[1] = -1.0  # a face is turned, never mirrored
    left, singular, right = np.linalg.svd(covariance)
    scale = 1.0 / spread * (singular @ mirror)
    turn = left @ np.diag(mirror) @ right
    shift = target.mean(0) - scale * (turn @ points.mean(0))
    if scale < 1e-6:
        raise InputError(f"landmarks are {points.tolist()}, which is not a face: no rotation fits them to one.")
    return np.concatenate([scale * turn, shift[:, None]], axis=1)


def align(
    image: UInt8[np.ndarray, "height width 3"], landmarks: Float[np.ndarray, "5 2"], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Cuts a face out of a photo as the restorer expects it, with bilinear interpolation.

    Args:
        image: RGB.
        landmarks: eyes, nose and corners of the mouth in pixels of the photo, x and y.
        size: height and width of the result in pixels.

    Returns:
        RGB; black where the photo ends.

    Raises:
        InputError: the image is not uint8 RGB, or the landmarks are not those of a face.
    """
    return _warp(image, landmarks, size, _triangle, 1)


def lanczos(
    image: UInt8[np.ndarray, "height width 3"], landmarks: Float[np.ndarray, "5 2"], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Stands in for a restored face: the frame of `align`, enlarged from the photo with Lanczos' filter of radius 3.

    Args:
        image: RGB.
        landmarks: eyes, nose and corners of the mouth in pixels of the photo, x and y.
        size: height and width of the result in pixels.

    Returns:
        RGB; black where the photo ends.

    Raises:
        InputError: the image is not uint8 RGB, or the landmarks are not those of a face.
    """
    return _warp(image, landmarks, size, _lanczos3, _LANCZOS_RADIUS)


def _triangle(distance: np.ndarray) -> np.ndarray:
    return 1.0 - np.abs(distance)


def _lanczos3(distance: np.ndarray) -> np.ndarray:
    return np.sinc(distance) * np.sinc(distance / _LANCZOS_RADIUS)


def _warp(image: np.ndarray, landmarks: np.ndarray, size: int, kernel: Kernel, radius: int) -> np.ndarray:
    """Samples the photo at every pixel of the frame from the 2 * radius pixels around in each direction."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"the photo is {image.dtype} {image.shape}; expected uint8 [height, width, 3].")
    x, y = _photo_coordinates(landmarks, size)
    # Beyond its border the photo goes on as it ends, then fades to black within one pixel: what bilinear interpolation
    # with black around gives, and what keeps other filters from drawing a bright line there.
    columns, across = _taps(x, image.shape[1], kernel, radius)
    rows, along = _taps(y, image.shape[0], kernel, radius)
    values, width = image.reshape(-1), image.shape[1]
    face = np.zeros((3, size, size))
    for row, vertical in zip(rows, along, strict=True):
        line = np.zeros_like(face)
        for column, horizontal in zip(columns, across, strict=True):
            pixel = 3 * (row * width + column)
            for channel in range(3):
                line[channel] += values.take(pixel + channel) * horizontal
        face += line * vertical
    return np.clip(np.rint(face), 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()


def _photo_coordinates(landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y in the photo of every pixel of the frame, [size, size] each."""
    matrix = similarity(landmarks, size)
    inverse = np.linalg.inv(matrix[:, :2])
    origin = -inverse @ matrix[:, 2]
    steps = np.arange(size, dtype=np.float64)
    x = inverse[0, 0] * steps + inverse[0, 1] * steps[:, None] + origin[0]
    y = inverse[1, 0] * steps + inverse[1, 1] * steps[:, None] + origin[1]
    return x, y


def _taps(position: np.ndarray, length: int, kernel: Kernel, radius: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the pixels of one axis that each position is interpolated from, and their weights."""
    position = np.clip(position, -1.0 - radius, length + radius)  # all black beyond
    first = np.floor(position).astype(np.intp)
    fraction = position - first
    offsets = range(1 - radius, radius + 1)
    weights = [kernel(fraction - offset) for offset in offsets]
    inside = np.clip(np.minimum(position + 1.0, length - position), 0.0, 1.0)
    scale = inside / functools.reduce(np.add, weights)
    indices = [np.clip(first + offset, 0, length - 1) for offset in offsets]
    return indices, [weight * scale for weight in weights]
