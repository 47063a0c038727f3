"""Metric losses: distances within a batch, batch-hard triplet, multi-similarity and centre loss."""

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
    cosine: bool = False,
) -> Float[Array, "*parts"]:
    """Batch-hard triplet loss: each anchor's farthest positive against its nearest negative.

    Args:
        features: features before the neck, any number of leading axes.
        labels: identity of each row.
        valid: rows that take part, as anchors and as positives or negatives.
        margin: of the hinge max(0, d_ap - d_an + margin).
        soft: softplus(d_ap - d_an) in place of the hinge.
        cosine: whether the distance is 1 - cosine in place of the Euclidean one.

    Returns:
        The mean over the anchors that have a positive and a negative, 0 when there are none; one value per
        leading index. Reference: Hermans et al., arXiv:1703.07737.
    """
    distance = 1.0 - _pairwise_cosine(features) if cosine else pairwise_distance(features)
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


def multi_similarity(
    features: Float[Array, "*parts batch dim"],
    labels: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
    *,
    margin: float = 0.7,
) -> Float[Array, "*parts"]:
    """Multi-similarity loss of cosines, as LightMBN has it: scales 2 and 40, threshold 0.5.

    An anchor keeps the negatives that are at most `margin` less similar than its least similar positive, and the
    positives that are at most `margin` more similar than its most similar negative; copies of the anchor are no
    positives. Where one of the two is left without any the anchor adds 0. No gradient flows through the choice.

    Args:
        features: features before the neck, any number of leading axes; scaled to unit length here.
        labels: identity of each row.
        valid: rows that take part, as anchors and as positives or negatives.
        margin: of the choice.

    Returns:
        The sum over the anchors, over the number of valid rows; one value per leading index. References: Wang et al.,
        CVPR 2019; Herzog et al., ICIP 2021 (code).
    """
    cosine = _pairwise_cosine(features)
    same, pairs = labels[:, None] == labels[None, :], valid[:, None] & valid[None, :]
    positive, negative = same & pairs & (cosine < 1.0 - 1e-5), ~same & pairs
    least = jnp.min(jnp.where(positive, cosine, jnp.inf), axis=-1, keepdims=True)
    most = jnp.max(jnp.where(negative, cosine, -jnp.inf), axis=-1, keepdims=True)
    positive, negative = positive & (cosine - margin < most), negative & (cosine + margin > least)
    counts = positive.any(-1) & negative.any(-1)
    pull, push = (
        jnp.log1p(jnp.exp(jnp.where(kept, -scale * (cosine - 0.5), -jnp.inf)).sum(-1)) / abs(scale)
        for kept, scale in ((positive, 2.0), (negative, -40.0))
    )
    return masked_mean(jnp.where(counts, pull + push, 0.0), valid)


def centre_loss(
    features: Float[Array, "*parts batch dim"],
    centres: Float[Array, "*parts classes dim"],
    labels: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
) -> Float[Array, "*parts"]:
    """Centre loss: the squared distance of each row from the centre of its class.

    Args:
        features: features before the neck, any number of leading axes.
        centres: of each class, for every leading index.
        labels: class of each row.
        valid: rows that take part.

    Returns:
        The mean over the valid rows of ||f - c||^2, without a factor 1/2; one value per leading index. Reference: Wen
        et al., ECCV 2016; Luo et al., CVPRW 2019 (code).
    """
    features = features.astype(float_type(features))
    own = jnp.take(centres.astype(features.dtype), jnp.where(valid, labels, 0), axis=-2)
    return masked_mean(jnp.square(features - own).sum(-1), valid)


def consistency(
    features: Float[Array, "*parts batch dim"], others: Float[Array, "*parts batch dim"], valid: Bool[Array, " batch"]
) -> Float[Array, "*parts"]:
    """Consistency loss: how far apart the features of two pictures of one photo are, between 0.5 and 1.

    Args:
        features: of one picture, any number of leading axes.
        others: of the other one.
        valid: rows that take part.

    Returns:
        The mean over valid rows of sigmoid(||f - g||^2), one value per leading index. Reference: Shu et al., IEEE SPL
        2021 (code).
    """
    difference = features.astype(float_type(features)) - others.astype(float_type(others))
    return masked_mean(jax.nn.sigmoid(jnp.square(difference).sum(-1)), valid)


def _pairwise_cosine(features: Float[Array, "*parts batch dim"]) -> Float[Array, "*parts batch batch"]:
    features = features.astype(float_type(features))
    tiny = 1e-12  # what the references clamp lengths at
    unit = features / jnp.maximum(_length(features), tiny)
    return jnp.einsum("...id,...jd->...ij", unit, unit, precision=_HIGHEST)


def _length(vectors: Array) -> Array:
    """Returns the lengths over the last axis, which stays; a zero vector has gradient zero instead of NaN."""
    squares = jnp.square(vectors).sum(-1, keepdims=True)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
