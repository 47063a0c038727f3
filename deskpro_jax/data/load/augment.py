"""Augmentation: crops, drawn here and cut while the host decodes; all else on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray, UInt8

from deskpro_jax.data.load import enlarging, jitter
from deskpro_jax.data.load.decoding import FULL, Box

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
_PHOTOS = ("body", "face", "restored_face")
_PAD, _JITTER = 4, 5  # of the purposes that a row's key is folded with: 0 mirrors it, 1 to 3 erase its photos
_MAPS = {"cloth_mask": 1, "garments": 0}  # what black borders are in them: no clothing
_TRIES = 16  # the published code tries 100 times; at 384x128 one draw in 1e15 is still without a fit here


def normalise(images: UInt8[Array | np.ndarray, "batch height width 3"]) -> Float[Array, "batch height width 3"]:
    """Returns photos in the range of ImageNet-trained networks.

    Args:
        images: [batch, height, width, 3] RGB, uint8 or float in 0..255.

    Returns:
        [batch, height, width, 3] float32: value / 255, minus the mean, over the standard deviation of ImageNet.
    """
    return (jnp.asarray(images, jnp.float32) / 255.0 - MEAN) / STD


def normalise_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Returns the batch with its photos normalised, for evaluation; everything else is passed on."""
    return {name: normalise(value) if name in _PHOTOS else value for name, value in batch.items()}


def draw_of_step(step: Array, steps_per_epoch: int, shared_draws: int) -> tuple[Array, ...]:
    """Returns the numbers that the augmentation of a step on the device is drawn from.

    Args:
        step: number of the step in its phase.
        steps_per_epoch: steps of an epoch.
        shared_draws: the field `augment.shared_draws`.

    Returns:
        The step, or with shared draws its epoch and the draw that it takes there.
    """
    if not shared_draws:
        return (step,)
    return step // steps_per_epoch, step % steps_per_epoch % shared_draws


def draw_crop(key: Sequence[int], probability: float, scale: float) -> Box:
    """Draws the window of an image that enlarging it by `scale` and cropping it back keeps.

    Args:
        key: non-negative integers that decide the draw.
        probability: of cropping at all.
        scale: the enlargement of height and width, at least 1.

    Returns:
        Left, top, right and bottom as fractions of the image.
    """
    chance, x, y = np.random.default_rng(key).random(3)
    if chance >= probability:
        return FULL
    size = 1.0 / scale
    left, top = x * (1.0 - size), y * (1.0 - size)
    return (left, top, min(1.0, left + size), min(1.0, top + size))


def augment_batch(key: PRNGKeyArray, batch: dict[str, Any], config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Augments and normalises a batch; row i depends only on the key and i, whatever the number of devices.

    Args:
        key: key of this step.
        batch: as from `pipeline.train_batches`: uint8 photos [batch, height, width, 3], cloth_mask and garments
            [batch, height, width]; the photos that are there are augmented, after enlarging those that it left small.
        config: the `augment` part of the configuration.

    Returns:
        The batch with photos as normalised float32: mirrored, padded and cropped, with other colours, partly erased.
        One draw mirrors and shifts all images of a row, and changes the colours of its photos; each photo has its own
        erasing (Zhong et al. 2020, Random Erasing Data Augmentation), the mask has none. With `shared_draws` one draw
        of each kind serves all rows and photos. With `pixel_sampling` "released" maps of garments are not shifted.
    """
    batch = enlarging.placed(batch)
    names = [name for name in (*_PHOTOS, *_MAPS) if name in batch]
    size = batch[names[0]].shape[0]
    shared = config.shared_draws > 0
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.zeros(size, int) if shared else jnp.arange(size))
    flips = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 0)) < config.flip)(keys)
    fill = np.asarray(config.erase_fill, np.float32)
    fill = fill if config.erase_normalised else (fill - MEAN) / STD
    result = dict(batch)
    for name in names:
        images = _mirror(batch[name], flips)
        stays = name == "garments" and config.pixel_sampling == "released"
        if config.pad and not stays:
            images = _shift(images, _keys_for(keys, _PAD), config.pad, fill=_MAPS.get(name, 0))
        amounts = config.brightness, config.contrast, config.saturation, config.hue
        if name in _PHOTOS and any(amounts):
            images = jitter.jitter(images, _keys_for(keys, _JITTER), *amounts)
        if name in _PHOTOS:
            height, width = images.shape[1:3]
            purpose = 1 if shared else 1 + _PHOTOS.index(name)
            erased = jax.vmap(lambda k, p=purpose, h=height, w=width: erasing(jax.random.fold_in(k, p), h, w, config))(
                keys
            )
            images = jnp.where(erased[..., None], fill, normalise(images))
        result[name] = images
    return result


def _keys_for(keys: PRNGKeyArray, purpose: int) -> PRNGKeyArray:
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)


def _shift(
    images: Num[Array, "batch height width ..."], keys: PRNGKeyArray, pad: int, fill: int
) -> Num[Array, "batch height width ..."]:
    """Pads each image on every side, and cuts a window of its own size out at random."""
    height, width, *channels = images.shape[1:]
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), *[(0, 0)] * len(channels)), constant_values=fill)

    def window(image: Array, key: PRNGKeyArray) -> Array:
        top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
        return jax.lax.dynamic_slice(image, (top, left, *[0] * len(channels)), (height, width, *channels))

    return jax.vmap(window)(padded, keys)


def _mirror(
    images: Num[Array, "batch height width ..."], flips: Bool[Array, " batch"]
) -> Num[Array, "batch height width ..."]:
    return jnp.where(flips.reshape(-1, *[1] * (images.ndim - 1)), images[:, :, ::-1], images)


def erasing(
    key: PRNGKeyArray, height: int, width: int, config: ml_collections.ConfigDict
) -> Bool[Array, "height width"]:
    """Draws which pixels of one image random erasing fills.

    With probability `erase` a rectangle: its fraction of the image is uniform in `erase_area`, its aspect ratio uniform
    between `erase_ratio` and its inverse, both drawn again until it fits; then its position is uniform.

    Args:
        key: key of the image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        config: the `augment` part of the configuration.

    Returns:
        [height, width], True where pixels are erased.
    """
    chance, area, ratio, top, left = jax.random.split(key, 5)
    low, high = config.erase_area
    areas = jax.random.uniform(area, (_TRIES,), minval=low, maxval=high) * (height * width)
    ratios = jax.random.uniform(ratio, (_TRIES,), minval=config.erase_ratio, maxval=1 / config.erase_ratio)
    heights, widths = jnp.round(jnp.sqrt(areas * ratios)), jnp.round(jnp.sqrt(areas / ratios))
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    h, w = heights[first], widths[first]
    y = jnp.floor(jax.random.uniform(top) * (height - h + 1))
    x = jnp.floor(jax.random.uniform(left) * (width - w + 1))
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= y) & (rows < y + h) & (columns >= x) & (columns < x + w)
    return inside & fits[first] & (jax.random.uniform(chance) < config.erase)
