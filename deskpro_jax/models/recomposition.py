"""Recomposition of appearance (FIRe2): stripes of a map take mean and deviation from those of other images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deskpro_jax.models.layers import at_least_float32
from deskpro_jax.models.stripes import equal_stripes

EPSILON = 1e-6  # added to the variance under the root


def draw_donors(
    key: Array, fine_class: Int[Array, " batch"], valid: Bool[Array, " batch"], parts: int
) -> Int[Array, "parts batch"]:
    """Draws an image of another fine class for each image and stripe, all that there are with equal probability.

    Args:
        key: of the draw.
        fine_class: of each image.
        valid: rows that can be drawn.
        parts: stripes, each with a draw of its own.

    Returns:
        Rows; an image for which there is no other one has its own.
    """
    others = (fine_class[:, None] != fine_class[None]) & valid[None]
    none = ~others.any(1, keepdims=True)
    logits = jnp.where(others | (none & jnp.eye(len(fine_class), dtype=bool)), 0.0, -jnp.inf)
    return jax.random.categorical(key, logits, axis=-1, shape=(parts, len(fine_class)))


def recompose(
    x: Float[Array, "batch height width channels"], donors: Int[Array, "parts batch"]
) -> Float[Array, "batch rows width channels"]:
    """Gives each stripe the mean and deviation, by channel, of the same stripe of another image.

    Means and deviations (of n - 1 pixels) are constants: the gradient flows through the pixels only.

    Args:
        x: maps; rows that are over at the bottom, for equal stripes, are left out.
        donors: rows of the images whose statistics the stripes take.
    """
    mixed = []
    for stripe, donor in zip(equal_stripes(x.astype(at_least_float32(x.dtype)), len(donors)), donors, strict=True):
        pixels = stripe.shape[1] * stripe.shape[2]
        mean = stripe.mean((1, 2), keepdims=True)
        variance = jnp.square(stripe - mean).sum((1, 2), keepdims=True) / max(pixels - 1, 1)
        mean, deviation = jax.lax.stop_gradient((mean, jnp.sqrt(variance + EPSILON)))
        mixed.append((stripe - mean) / deviation * deviation[donor] + mean[donor])
    return jnp.concatenate(mixed, 1)
