"""Classes of clothes in golden cases: contiguous for each identity, as a batch of this package has them."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import golden_rule


def batch_fields(per_identity: Sequence[int], identities: Sequence[int], clothes: Sequence[int]) -> dict[str, Array]:
    """Returns `clothes` and `clothes_range` of a batch.

    Args:
        per_identity: number of outfits of each identity.
        identities: of each image.
        clothes: class of each image.
    """
    ends = np.cumsum([0, *per_identity])
    rows = np.asarray(identities)
    return {
        "clothes": jnp.asarray(clothes, jnp.int32),
        "clothes_range": jnp.asarray(np.stack([ends[rows], ends[rows + 1]], 1), jnp.int32),
    }


def own_classes(fields: dict[str, Array], classes: int) -> Array:
    """Returns which classes are those of each image's identity."""
    first, end = fields["clothes_range"].T[..., None]
    return (jnp.arange(classes) >= first) & (jnp.arange(classes) < end)


def classifier(name: str, shape: Sequence[int], seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Returns a classifier of clothes that the rule fills, as the parameters of its term."""
    return {"classifier": {"kernel": golden_rule.fill(name, list(shape), seed).T}}
