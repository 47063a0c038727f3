"""Colour jitter on the device, in the integers of Pillow's `ImageEnhance`, as torchvision's jitter of photos."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

_LUMA = (19595, 38470, 7471)  # weights of red, green and blue in Pillow's grey, over 2^16


def jitter(
    photos: UInt8[Array, "batch height width 3"], keys: PRNGKeyArray, brightness: float, contrast: float
) -> UInt8[Array, "batch height width 3"]:
    """Changes brightness and contrast of each photo by random factors, in random order.

    Args:
        photos: RGB.
        keys: a key for each photo.
        brightness: factors are uniform between 1 - this, at least 0, and 1 + this; 0 changes nothing.
        contrast: the same of the contrast.

    Returns:
        RGB.
    """

    def change(photo: Array, key: PRNGKeyArray) -> Array:
        first, second, order = jax.random.split(key, 3)
        brighter, contrasting = _factor(first, brightness), _factor(second, contrast)
        if not brightness:
            return with_contrast(photo, contrasting)
        if not contrast:
            return with_brightness(photo, brighter)
        one = with_contrast(with_brightness(photo, brighter), contrasting)
        other = with_brightness(with_contrast(photo, contrasting), brighter)
        return jnp.where(jax.random.bernoulli(order), one, other)

    return jax.vmap(change)(photos, keys)


def _factor(key: PRNGKeyArray, amount: float) -> Float[Array, ""]:
    return jax.random.uniform(key, minval=max(0.0, 1.0 - amount), maxval=1.0 + amount)


def with_brightness(
    photo: UInt8[Array, "height width 3"], factor: Float[Array, ""] | float
) -> UInt8[Array, "height width 3"]:
    """Returns a photo with its values multiplied, as `ImageEnhance.Brightness` does."""
    return _blend(jnp.zeros((), jnp.int32), photo, factor)


def with_contrast(
    photo: UInt8[Array, "height width 3"], factor: Float[Array, ""] | float
) -> UInt8[Array, "height width 3"]:
    """Returns a photo with the distances from its mean grey multiplied, as `ImageEnhance.Contrast` does."""
    values = photo.astype(jnp.int32)
    grey = (values @ jnp.asarray(_LUMA, jnp.int32) + (1 << 15)) >> 16
    mean = (2 * grey.sum() + grey.size) // (2 * grey.size)  # rounded, halves up
    return _blend(mean, photo, factor)


def _blend(base: Array, photo: Array, factor: Float[Array, ""] | float) -> Array:
    moved = base + factor * (photo.astype(jnp.int32) - base).astype(jnp.float32)
    return jnp.clip(moved, 0, 255).astype(jnp.uint8)  # Pillow cuts the fraction off
