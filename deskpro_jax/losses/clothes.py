"""Losses on classes of clothes: adversarial loss and its memory (CAL), divergence of two (AIM)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deskpro_jax.losses.reduction import float_type, masked_mean


def adversarial(
    cosine: Float[Array, "batch classes"],
    clothes: Int[Array, " batch"],
    own: Bool[Array, "batch classes"],
    valid: Bool[Array, " batch"],
    *,
    scale: float = 16.0,
    epsilon: float = 0.1,
    seen: Bool[Array, " classes"] | None = None,
) -> Float[Array, ""]:
    """Clothes-based adversarial loss: features must not tell the clothes of a person apart.

    Every class of clothes that the person wears competes with those of other people, and not with one another:
    log p_j = s cos_j - log(exp(s cos_j) + sum over other people's classes of exp(s cos)). The target of the class that
    is worn is 1 - epsilon + epsilon / K, of the K - 1 others of the person epsilon / K.

    Args:
        cosine: of each image's feature with each class.
        clothes: class of each image.
        own: whether a class is one of the person's.
        valid: rows that take part.
        scale: s, the inverse of the paper's temperature.
        epsilon: of the target.
        seen: classes that take part, of the memory's; None for all.

    Returns:
        The mean over valid rows. Reference: Gu et al., CVPR 2022, Eq. 5 and its code.
    """
    logits = scale * cosine.astype(float_type(cosine))
    known = jnp.ones(logits.shape[-1], bool) if seen is None else seen
    others = jax.nn.logsumexp(logits, axis=-1, keepdims=True, where=known & ~own)
    own = own & known
    log_p = logits - jnp.logaddexp(logits, others)
    worn = jnp.arange(logits.shape[-1]) == clothes[:, None]
    count = jnp.maximum(own.sum(-1, keepdims=True), 1)
    target = jnp.where(own, epsilon / count, 0) + (1.0 - epsilon) * worn
    return masked_mean(-(target * log_p).sum(-1), valid)


def update_memory(
    memory: Float[Array, "classes dim"],
    seen: Bool[Array, " classes"],
    features: Float[Array, "batch dim"],
    clothes: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
    *,
    full: bool,
    momentum: float = 0.0,
) -> tuple[Float[Array, "classes dim"], Bool[Array, " classes"]]:
    """Puts the features of a batch into a memory that stands in for the classifier of clothes (`adversarial`'s `seen`).

    The images of a class move its row one after the other: until the memory is full each takes its place, afterwards
    the row becomes `momentum` * row + (1 - `momentum`) * feature.

    Args:
        memory: a feature of each class.
        seen: classes that have one.
        features: of the batch.
        clothes: class of each image.
        valid: rows that take part.
        full: whether every class had a feature before this batch.
        momentum: of the rows.

    Returns:
        Memory and classes that have a feature after it. Reference: code of Gu et al., CVPR 2022 (`CALWithMemory`).
    """
    kept = momentum if full else 0.0

    def put(memory: Array, row: tuple[Array, Array, Array]) -> tuple[Array, None]:
        feature, label, counts = row
        moved = kept * memory[label] + (1.0 - kept) * feature
        return memory.at[label].set(jnp.where(counts, moved, memory[label])), None

    memory, _ = jax.lax.scan(put, memory, (jax.lax.stop_gradient(features), clothes, valid))
    return memory, seen.at[clothes].max(valid)


def symmetric_divergence(
    first: Float[Array, "batch classes"], second: Float[Array, "batch classes"], valid: Bool[Array, " batch"]
) -> Float[Array, ""]:
    """Kullback-Leibler divergence of the softmax of two scores, both ways.

    Args:
        first, second: scores.
        valid: rows that take part.

    Returns:
        The sum over valid rows and classes. Reference: Yang et al., CVPR 2023 (code).
    """
    log_p, log_q = (jax.nn.log_softmax(x.astype(float_type(x))) for x in (first, second))
    each = (jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q)
    return jnp.where(valid, each.sum(-1), 0).sum()
