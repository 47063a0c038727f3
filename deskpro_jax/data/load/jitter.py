"""Colour jitter on the device, in the integers of Pillow's `ImageEnhance` and HSV, as torchvision jitters photos."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

_LUMA = (19595, 38470, 7471)  # weights of red, green and blue in Pillow's grey, over 2^16
_LEVELS = 256  # of a colour


def jitter(
    photos: UInt8[Array, "batch height width 3"],
    keys: PRNGKeyArray,
    brightness: float,
    contrast: float,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> UInt8[Array, "batch height width 3"]:
    """Changes brightness, contrast, saturation and hue of each photo at random, in random order.

    Args:
        photos: RGB.
        keys: a key for each photo.
        brightness: factors are uniform between 1 - this, at least 0, and 1 + this; 0 changes nothing.
        contrast: the same of the contrast.
        saturation: the same of the saturation.
        hue: turns are uniform between -this and this, as fractions of the circle; 0 changes nothing.

    Returns:
        RGB.
    """
    four = bool(saturation or hue)

    def change(photo: Array, key: PRNGKeyArray) -> Array:
        first, second, order = jax.random.split(key, 3)
        brighter, contrasting = _factor(first, brightness), _factor(second, contrast)
        if four:
            more, turn, shuffle = jax.random.split(order, 3)
            turned = jax.random.uniform(turn, minval=-hue, maxval=hue)
            changes = [
                lambda x: with_brightness(x, brighter) if brightness else x,
                lambda x: with_contrast(x, contrasting) if contrast else x,
                lambda x: with_saturation(x, _factor(more, saturation)) if saturation else x,
                lambda x: with_hue(x, jnp.trunc(turned * 255).astype(jnp.int32)) if hue else x,
            ]
            for one in jax.random.permutation(shuffle, len(changes)):
                photo = jax.lax.switch(one, changes, photo)
            return photo
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
    grey = _grey(photo)
    mean = (2 * grey.sum() + grey.size) // (2 * grey.size)  # rounded, halves up
    return _blend(mean, photo, factor)


def with_saturation(
    photo: UInt8[Array, "height width 3"], factor: Float[Array, ""] | float
) -> UInt8[Array, "height width 3"]:
    """Returns a photo with the distances from its own greys multiplied, as `ImageEnhance.Color` does."""
    return _blend(_grey(photo)[..., None], photo, factor)


def with_hue(photo: UInt8[Array, "height width 3"], turn: Int[Array, ""] | int) -> UInt8[Array, "height width 3"]:
    """Returns a photo whose hues are turned by `turn` of 256 steps, by way of Pillow's HSV as torchvision does."""
    red, green, blue = (photo[..., i].astype(jnp.int32) for i in range(3))
    value, lowest = photo.max(-1).astype(jnp.int32), photo.min(-1).astype(jnp.int32)
    chroma = value - lowest
    largest = jnp.where(red == value, 0, jnp.where(green == value, 1, 2))
    after = jnp.stack([green, blue, red])  # of the circle red, green, blue: the colour after the largest one
    before = jnp.stack([blue, red, green])
    after, before = (jnp.take_along_axis(colours, largest[None], 0)[0] for colours in (after, before))
    rising = before == lowest  # the hue is between the largest colour and the one after it
    hues, saturations = _hues(), _saturations()
    other = value - jnp.where(rising, after, before)
    hue = jnp.asarray(hues)[largest, rising.astype(jnp.int32), chroma, other].astype(jnp.int32)
    saturation = jnp.asarray(saturations)[value, chroma].astype(jnp.int32)
    return _from_hsv((hue + turn) % _LEVELS, saturation, value).astype(jnp.uint8)


def _from_hsv(hue: Array, saturation: Array, value: Array) -> Array:
    sector, part = 6 * hue // 255 % 6, 6 * hue % 255
    whole = 255 * 255
    faded = [saturation * 255, saturation * part, saturation * (255 - part)]
    # Rounded quotients; none is halfway between two integers.
    low, falling, rising = ((2 * value * (whole - share) + whole) // (2 * whole) for share in faded)
    sectors = [
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    ]
    colours = jnp.stack([jnp.stack(colours, -1) for colours in sectors])
    return jnp.take_along_axis(colours, sector[None, ..., None], 0)[0]


@functools.cache
def _saturations() -> np.ndarray:
    """Returns Pillow's saturation by value and chroma [256, 256], with the float32 it computes them in."""
    value, chroma = np.ogrid[:_LEVELS, :_LEVELS]
    quotient = (chroma / np.maximum(value, 1)).astype(np.float32)
    return np.clip(quotient.astype(np.float64) * 255, 0, 255).astype(np.uint8)


@functools.cache
def _hues() -> np.ndarray:
    """Returns Pillow's hue [3, 2, 256, 256], with the float32 it computes them in.

    Axes: the largest colour; whether the one before it (of red, green, blue, red, ...) is the smallest; the chroma; how
    much less than the largest the third one is.
    """
    chroma, other = np.ogrid[:_LEVELS, :_LEVELS]
    part = (other / np.maximum(chroma, 1)).astype(np.float32).astype(np.float64)
    hues = np.zeros((3, 2, _LEVELS, _LEVELS), np.uint8)
    for largest in range(3):
        for rising, sixth in enumerate((2 * largest + part - 1, 2 * largest + 1 - part)):
            fraction = np.fmod(sixth.astype(np.float32).astype(np.float64) / 6.0 + 1.0, 1.0).astype(np.float32)
            hues[largest, rising] = np.where(chroma > 0, fraction.astype(np.float64) * 255, 0).astype(np.int64) % 256
    return hues


def _grey(photo: Array) -> Array:
    return (photo.astype(jnp.int32) @ jnp.asarray(_LUMA, jnp.int32) + (1 << 15)) >> 16


def _blend(base: Array, photo: Array, factor: Float[Array, ""] | float) -> Array:
    moved = base + factor * (photo.astype(jnp.int32) - base).astype(jnp.float32)
    return jnp.clip(moved, 0, 255).astype(jnp.uint8)  # Pillow cuts the fraction off
