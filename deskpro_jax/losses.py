"""The training losses, Eq. 3-7: pure functions, each with a mask of the rows that take part."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from deskpro_jax.errors import InputError

MASK_RULES = ("paper", "released")
_HIGHEST = jax.lax.Precision.HIGHEST  # distances of near neighbours cancel: no reduced-precision products


def masked_mean(values: Float[Array, "*parts batch"], valid: Bool[Array, " batch"]) -> Float[Array, "*parts"]:
    """Returns the mean over the valid rows of the last axis, 0 when there are none."""
    total = jnp.where(valid, values, 0).sum(-1)
    return total / jnp.maximum(valid.sum(-1), 1).astype(total.dtype)


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
        has_mask: images that have a mask; the others take no part.
        epsilon: see `cloth_target`.
        rule: see `cloth_target`.

    Returns:
        The mean over the images with a mask.
    """
    attention = attention.astype(_float(attention))
    target = cloth_target(not_clothing.astype(attention.dtype), (attention.shape[1], attention.shape[2]), epsilon, rule)
    return masked_mean(jnp.square(attention - target).mean((1, 2)), has_mask)


def cross_entropy(
    logits: Float[Array, "*parts batch classes"],
    labels: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
    *,
    smoothing: float = 0.0,
) -> Float[Array, "*parts"]:
    """Cross-entropy with label smoothing: the target is (1 - s) one-hot + s / classes.

    Args:
        logits: unnormalised scores, any number of leading axes.
        labels: class of each row.
        valid: rows that take part.
        smoothing: s.

    Returns:
        The mean over valid rows, one value a leading index. Reference: Szegedy et al., CVPR 2016.
    """
    log_p = jax.nn.log_softmax(logits.astype(_float(logits)))
    labels = jnp.where(valid, labels, 0)
    picked = jnp.take_along_axis(
        log_p, jnp.broadcast_to(labels[:, None], (*log_p.shape[:-1], 1)).astype(jnp.int32), axis=-1
    )[..., 0]
    # The targets are float32 in whatever type the rest is, as in the reference: a step amplifies even their rounding.
    others = np.float32(smoothing / logits.shape[-1])
    excess = float(np.float32(1.0 - smoothing) + others) - float(others)
    return masked_mean(-excess * picked - float(others) * log_p.sum(-1), valid)


def pairwise_distance(features: Float[Array, "*parts batch dim"]) -> Float[Array, "*parts batch batch"]:
    """Euclidean distances between all rows; a distance of zero has gradient zero instead of infinity."""
    features = features.astype(_float(features))
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
        The mean over the anchors that have a positive and a negative, 0 when there are none; one value a leading
        index. Reference: Hermans et al., arXiv:1703.07737.
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


def knowledge_propagation(
    teacher_logits: Float[Array, "parts batch classes"],
    student_logits: Float[Array, "parts batch classes"],
    valid: Bool[Array, " batch"],
    *,
    temperature: float,
) -> Float[Array, ""]:
    """Facial knowledge propagation loss L_fkp (Eq. 5): tau^2 * sum over outputs of KL(teacher || student).

    Args:
        teacher_logits: of the frozen teacher, on restored faces; no gradient flows into them.
        student_logits: of the student, on low-resolution faces.
        valid: images with both faces.
        temperature: tau.

    Returns:
        The sum over the seven outputs of the mean over valid images.
    """
    dtype = _float(student_logits)
    teacher = _tempered_log_softmax(jax.lax.stop_gradient(teacher_logits).astype(dtype), temperature)
    student = _tempered_log_softmax(student_logits.astype(dtype), temperature)
    divergence = (jnp.exp(teacher) * (teacher - student)).sum(-1)
    return temperature**2 * masked_mean(divergence, valid).sum()


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


def _tempered_log_softmax(logits: Array, temperature: float) -> Array:
    # The largest logit goes before the division: fused with it into one multiply-add, the subtraction inside
    # log_softmax meets a maximum that was rounded otherwise, and huge logits leave a positive rest that overflows.
    largest = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    return jax.nn.log_softmax((logits - largest) / temperature)


def _float(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)
