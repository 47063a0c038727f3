"""Pixel sampling: people in the clothes of others of the batch, from maps of their garments, on the device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

GARMENTS = (1, 2)  # in maps of garments: upper clothes, trousers; 0 is everything else
FORMS = ("regions", "released")  # values of augment.pixel_sampling


def sample(
    key: PRNGKeyArray,
    images: Float[Array, "batch height width 3"],
    garments: UInt8[Array, "batch height width"],
    identity: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
    form: str = "regions",
) -> Float[Array, "batch height width 3"]:
    """Draws whose clothes each person gets, and puts them on.

    Args:
        key: of this draw.
        images: photos.
        garments: which garment each pixel shows, of `GARMENTS`.
        identity: of each photo.
        valid: photos that are no padding.
        form: "regions": a pixel's colour comes from the same garment of one other person, at about the same height in
            it. "released": as the code of Shu et al. does, see `flat`.

    Returns:
        The photos with other clothes.
    """
    keys = jax.random.split(key, len(GARMENTS))
    if form == "released":
        orders = [jax.random.permutation(one, len(images)) for one in keys]
        return flat(images, garments, jnp.stack(orders))
    sources = [other_person(one, garments == label, identity, valid) for one, label in zip(keys, GARMENTS, strict=True)]
    return regions(images, garments, jnp.stack(sources))


def other_person(
    key: PRNGKeyArray,
    garment: Bool[Array, "batch height width"],
    identity: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
) -> Int[Array, " batch"]:
    """Draws for each photo a photo of another person that shows a garment; the photo itself where there is none."""
    able = (valid & garment.any((1, 2)))[None] & (identity[:, None] != identity[None])
    drawn = jnp.argmax(jnp.where(able, jax.random.uniform(key, able.shape), -1.0), axis=1)
    return jnp.where(able.any(1), drawn, jnp.arange(len(identity)))


def regions(
    images: Float[Array, "batch height width 3"],
    garments: UInt8[Array, "batch height width"],
    sources: Int[Array, "garments batch"],
) -> Float[Array, "batch height width 3"]:
    """Gives each garment the colours of another photo's: row by row, stretched to the number of pixels.

    Args:
        images: photos.
        garments: see `sample`.
        sources: the photo that each garment of each photo gets its colours from.

    Returns:
        The photos with other clothes; a garment whose source shows none stays.
    """
    batch, height, width, channels = images.shape
    flattened = images.reshape(batch, height * width, channels)
    result = flattened
    for label, source in zip(GARMENTS, sources, strict=True):
        shown = (garments == label).reshape(batch, -1)
        ordinal, count = jnp.cumsum(shown, 1) - 1, shown.sum(1)
        positions = jax.vmap(_positions)(shown)
        own, theirs = jnp.maximum(count, 1)[:, None], count[source][:, None]
        nth = jnp.floor((ordinal + 0.5) * (theirs / own)).astype(jnp.int32)
        pixel = jnp.take_along_axis(positions[source], jnp.clip(nth, 0, jnp.maximum(theirs - 1, 0)), axis=1)
        colours = jnp.take_along_axis(flattened[source], pixel[..., None], axis=1)
        result = jnp.where((shown & (theirs > 0))[..., None], colours, result)
    return result.reshape(images.shape)


def flat(
    images: Float[Array, "batch height width 3"],
    garments: UInt8[Array, "batch height width"],
    orders: Int[Array, "garments batch"],
) -> Float[Array, "batch height width 3"]:
    """Permutes the values of a garment over the batch as the released code does.

    All values of a garment are one sequence: photo by photo, in these red, green and blue, then row by row. The
    sequence of the permuted batch takes the place of that of the batch, so that colours and people mix.

    Args:
        images: photos.
        garments: see `sample`.
        orders: a permutation of the photos for each garment.

    Returns:
        The photos with other clothes.
    """
    planes = images.transpose(0, 3, 1, 2)
    result = planes.reshape(-1)
    for label, order in zip(GARMENTS, orders, strict=True):
        shown = jnp.broadcast_to((garments == label)[:, None], planes.shape)
        there, here = shown[order].reshape(-1), shown.reshape(-1)
        values = planes[order].reshape(-1)[_positions(there)]
        result = jnp.where(here, values[jnp.cumsum(here) - 1], result)
    return result.reshape(planes.shape).transpose(0, 2, 3, 1)


def _positions(shown: Bool[Array, " pixels"]) -> Int[Array, " pixels"]:
    """Returns where the first, second, ... true value is; 0 past the last."""
    return functools.partial(jnp.nonzero, size=shown.size, fill_value=0)(shown)[0]
