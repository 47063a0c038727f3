"""Distillation losses: facial knowledge propagation L_fkp (Eq. 5)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deskpro_jax.losses.reduction import float_type, masked_mean


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
    dtype = float_type(student_logits)
    teacher = _tempered_log_softmax(jax.lax.stop_gradient(teacher_logits).astype(dtype), temperature)
    student = _tempered_log_softmax(student_logits.astype(dtype), temperature)
    divergence = (jnp.exp(teacher) * (teacher - student)).sum(-1)
    return temperature**2 * masked_mean(divergence, valid).sum()


def _tempered_log_softmax(logits: Array, temperature: float) -> Array:
    # The largest logit goes before the division: fused with it into one multiply-add, the subtraction inside
    # log_softmax meets a maximum that was rounded differently, and huge logits leave a positive remainder, which
    # overflows.
    largest = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    return jax.nn.log_softmax((logits - largest) / temperature)
