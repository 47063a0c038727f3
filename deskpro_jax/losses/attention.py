"""Mask-guided attention loss L_att (Eq. 3-4)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deskpro_jax.errors import InputError
from deskpro_jax.losses.reduction import float_type, masked_mean

MASK_RULES = ("paper", "released")


def cloth_target(
    not_clothing: Float[Array, "batch height width"], size: tuple[int, int], epsilon: float, rule: str = "paper"
) -> Float[Array, "batch rows columns"]:
    """Returns the attention map that CSA should produce (Eq. 3), resized to `size`.

    Args:
        not_clothing: 0/1 masks, 1 where there is no clothing.
        size: rows and columns of the attention map.
        epsilon: value for clothing, which keeps attention away from zero.
        rule: "paper" writes epsilon, then resizes; "released" resizes the 0/1 mask, then replaces exact zeros.

    Returns:
        Targets in [epsilon, 1]; bilinear between pixel centres, without antialiasing (`cv2.resize`).

    Raises:
        InputError: `rule` is neither of the two.
    """
    if rule not in MASK_RULES:
        raise InputError(f"loss.mask_rule is {rule!r}; expected one of {', '.join(MASK_RULES)}.")
    shape = (not_clothing.shape[0], *size)
    mask = jnp.maximum(not_clothing, epsilon) if rule == "paper" else not_clothing
    resized = jax.image.resize(mask, shape, "bilinear", antialias=False)
    return resized if rule == "paper" else jnp.where(resized == 0, epsilon, resized)


def attention_loss(
    attention: Float[Array, "batch rows columns"],
    not_clothing: Float[Array, "batch height width"],
    has_mask: Bool[Array, " batch"],
    *,
    epsilon: float = 0.1,
    rule: str = "paper",
) -> Float[Array, ""]:
    """Mask-guided attention loss L_att (Eq. 4): mean squared difference of map and target.

    Args:
        attention: CSA maps in (0, 1).
        not_clothing: 0/1 masks, 1 where there is no clothing.
        has_mask: images that have a mask; all others are left out.
        epsilon: see `cloth_target`.
        rule: see `cloth_target`.

    Returns:
        The mean over the images with a mask.
    """
    attention = attention.astype(float_type(attention))
    target = cloth_target(not_clothing.astype(attention.dtype), (attention.shape[1], attention.shape[2]), epsilon, rule)
    return masked_mean(jnp.square(attention - target).mean((1, 2)), has_mask)
