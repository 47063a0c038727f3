"""The total of Eq. 7."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float


def total_loss(
    terms: dict[str, Array], *, attention_weight: float, alpha: float, triplet_weight: float = 1.0
) -> Float[Array, ""]:
    """Adds the loss terms of one step up to the total (Eq. 7).

    Args:
        terms: any of `attention` (Eq. 4), `triplet_face`, `triplet_body`, `ce_face`, `ce_body` (Eq. 6, each summed over
            its outputs) and `kd` (Eq. 5); any others (`loss.extra`) are added as they are.
        attention_weight: lambda.
        alpha: weight of `kd`; the student's cross-entropy keeps 1 - alpha. Without `kd` it keeps 1.
        triplet_weight: weight of both triplet terms, 1 in the paper.

    Returns:
        lambda L_att + L_trip + (alpha L_fkp + (1 - alpha) L_ce^s) + L_ce^g.
    """
    share = alpha if "kd" in terms else 0.0
    weights = {"attention": attention_weight, "kd": share, "ce_face": 1.0 - share}
    weights |= {"triplet_face": triplet_weight, "triplet_body": triplet_weight}
    return functools.reduce(jnp.add, [weights.get(name, 1.0) * term for name, term in terms.items()])
