"""Cosines of features with classes: a classifier without a bias, whose scores do not depend on lengths."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.losses.reduction import float_type

_TINY = 1e-12  # what the references clamp lengths at


def cosines(features: Float[Array, "batch dim"], kernel: Float[Array, "dim classes"]) -> Float[Array, "batch classes"]:
    """Returns the cosine of every feature with the direction of every class, 0 for a class without one.

    Args:
        features: of any length.
        kernel: the directions, of any length.
    """
    highest = jax.lax.Precision.HIGHEST
    return jnp.matmul(unit(features), unit(kernel, axis=0), precision=highest)


def unit(vectors: Array, axis: int = -1) -> Array:
    """Returns vectors at unit length along an axis; a zero vector stays zero, and has a finite gradient."""
    vectors = vectors.astype(float_type(vectors))
    squares = jnp.square(vectors).sum(axis, keepdims=True)
    return vectors / jnp.sqrt(jnp.maximum(squares, _TINY**2))
