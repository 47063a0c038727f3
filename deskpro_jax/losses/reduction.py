"""Means over the valid rows of a batch, and the type that losses are computed in."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_mean(values: Float[Array, "*parts batch"], valid: Bool[Array, " batch"]) -> Float[Array, "*parts"]:
    """Returns the mean over the valid rows of the last axis, 0 when there are none."""
    total = jnp.where(valid, values, 0).sum(-1)
    return total / jnp.maximum(valid.sum(-1), 1).astype(total.dtype)


def float_type(x: Array) -> jnp.dtype:
    """Returns the type that a loss of `x` is computed in: float32, or float64 where `x` already is."""
    return jnp.promote_types(x.dtype, jnp.float32)
