"""Metric losses: distances within a batch, batch-hard triplet loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deskpro_jax.losses.reduction import float_type, masked_mean

_HIGHEST = jax.lax.Precision.HIGHEST  # distances of near neighbours cancel: no reduced-precision products


def pairwise_distance(features: Float[Array, "*parts batch dim"]) -> Float[Array, "*parts batch batch"]:
    """Euclidean distances between all rows; a distance of zero has gradient zero instead of infinity."""
    features = features.astype(float_type(features))
    norms = jnp.square(features).sum(-1)
    products = jnp.einsum("...id,...jd->...ij", features, features, precision=_HIGHEST)
    squared = norms[..., :, None] + norms[..., None, :] - 2.0 * products
    tiny = 1e-12  # what the references clamp at
    return jnp.sqrt(jnp.where(squared > tiny, squared, tiny))


def batch_hard_triplet(
    features: Float[Array, "*parts batch dim"],
    labels: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
    *,
    margin: float = 0.7,
    soft: bool = False,
) -> Float[Array, "*parts"]:
    """Batch-hard triplet loss: each anchor's farthest positive against its nearest negative.

    Args:
        features: features before the neck, any number of leading axes.
        labels: identity of each row.
        valid: rows that take part, as anchors and as positives or negatives.
        margin: of the hinge max(0, d_ap - d_an + margin).
        soft: softplus(d_ap - d_an) in place of the hinge.

    Returns:
        The mean over the anchors that have a positive and a negative, 0 when there are none; one value per
        leading index. Reference: Hermans et al., arXiv:1703.07737.
    """
    distance = pairwise_distance(features)
    same = labels[:, None] == labels[None, :]
    pairs = valid[:, None] & valid[None, :]
    positive = same & pairs & ~jnp.eye(labels.shape[0], dtype=bool)
    negative = ~same & pairs
    usable = positive.any(1) & negative.any(1)
    # Chosen by position, so that no gradient depends on comparing values that may be computed twice.
    farthest = _at(distance, jnp.argmax(jnp.where(positive, distance, -1.0), axis=-1))
    nearest = _at(distance, jnp.argmin(jnp.where(negative, distance, jnp.inf), axis=-1))
    gap = jnp.where(usable, farthest - nearest, 0.0)
    loss = jax.nn.softplus(gap) if soft else jax.nn.relu(gap + margin)
    return masked_mean(loss, usable)


def _at(distance: Array, column: Array) -> Array:
    """Returns distance[..., i, column[..., i]]."""
    return jnp.take_along_axis(distance, column[..., None], axis=-1)[..., 0]
