"""Cameras: white balance, tone, vignette, blur, noise and JPEG quality, each with a character of its own."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from PIL import Image, ImageFilter

COUNT = 6


@dataclasses.dataclass(frozen=True)
class Camera:
    """What a camera does to every image it takes."""

    gains: tuple[float, float, float]  # white balance, factors on R, G, B
    gamma: float
    contrast: float
    blur: float  # radius, pixels
    noise: float  # standard deviation, grey levels
    vignette: float  # darkening of the corners, 0 to 1
    quality: int  # JPEG


def make_cameras(rng: np.random.Generator) -> tuple[Camera, ...]:
    """Draws the cameras of a dataset, spread evenly over warm to cold, sharp to soft, and clean to noisy.

    Args:
        rng: source of randomness.
    """
    warm, blur, noise, quality = (rng.permutation(COUNT) / (COUNT - 1) for _ in range(4))
    return tuple(
        Camera(
            gains=(1 + 0.12 * (2 * warm[k] - 1), float(rng.uniform(0.95, 1.05)), 1 - 0.15 * (2 * warm[k] - 1)),
            gamma=float(rng.uniform(0.85, 1.18)),
            contrast=float(rng.uniform(0.85, 1.1)),
            blur=0.3 + 0.6 * float(blur[k]),
            noise=2.0 + 6.0 * float(noise[k]),
            vignette=float(rng.uniform(0.0, 0.25)),
            quality=75 + round(20 * float(quality[k])),
        )
        for k in range(COUNT)
    )


def encode_jpeg(image: Image.Image, quality: int, full_colour: bool = False) -> bytes:
    """Returns an image as JPEG; `full_colour` keeps the colours at full resolution (no chroma subsampling)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if full_colour else 2)
    return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Exposure:
    """Colour and tone of one image: the camera's, and those of the light on the day."""

    gains: np.ndarray  # factors on R, G, B [3]
    curve: np.ndarray  # grey level after each level of 0 to 255, uint8 [256]

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels [..., 3], 0 to 255, as the camera shows them, uint8."""
        return self.curve[np.clip(pixels * self.gains, 0, 255).astype(np.uint8)]


def sample_exposure(camera: Camera, rng: np.random.Generator) -> Exposure:
    """Draws the light of an image and how the camera takes it.

    Args:
        camera: which camera.
        rng: the image's source of randomness.
    """
    warm = rng.normal(0, 0.09)
    light = np.array([1 + warm, 1 + rng.normal(0, 0.03), 1 - warm]) * rng.uniform(0.62, 1.22)
    tone = np.arange(256) / 255
    gamma = camera.gamma * rng.uniform(0.85, 1.18)
    curve = np.clip(255 * (0.5 + camera.contrast * (tone**gamma - 0.5)), 0, 255)
    return Exposure((np.asarray(camera.gains) * light).astype(np.float32), curve.astype(np.uint8))


def photograph(pixels: np.ndarray, camera: Camera, exposure: Exposure, rng: np.random.Generator) -> bytes:
    """Takes a picture of a lit scene.

    Args:
        pixels: float32 [height, width, 3], 0 to 255.
        camera: which camera.
        exposure: of this image.
        rng: the image's source of randomness.

    Returns:
        The picture as a JPEG file.
    """
    height, width = pixels.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    vignette = 1 - camera.vignette * 0.5 * (x**2 + y**2)
    image = Image.fromarray(exposure.apply(pixels * vignette[..., None]))
    image = image.filter(ImageFilter.GaussianBlur(camera.blur * rng.uniform(0.7, 1.3)))
    grain = camera.noise * rng.uniform(0.7, 1.3) * rng.standard_normal((height, width, 3), np.float32)
    noisy = np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8)
    return encode_jpeg(Image.fromarray(noisy), camera.quality)
