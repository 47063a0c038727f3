"""Identification losses: cross-entropy with label smoothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from deskpro_jax.losses.reduction import float_type, masked_mean


def cross_entropy(
    logits: Float[Array, "*parts batch classes"],
    labels: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
    *,
    smoothing: float = 0.0,
    float32_targets: bool = False,
) -> Float[Array, "*parts"]:
    """Cross-entropy with label smoothing: the target is (1 - s) one-hot + s / classes.

    Args:
        logits: unnormalised scores, any number of leading axes.
        labels: class of each row.
        valid: rows that take part.
        smoothing: s.
        float32_targets: whether the targets are rounded to float32 whatever the type of the logits, as in the released
            code of DeSKPro: its steps amplify even that.

    Returns:
        The mean over valid rows, one value per leading index. Reference: Szegedy et al., CVPR 2016.
    """
    log_p = jax.nn.log_softmax(logits.astype(float_type(logits)))
    labels = jnp.where(valid, labels, 0)
    picked = jnp.take_along_axis(
        log_p, jnp.broadcast_to(labels[:, None], (*log_p.shape[:-1], 1)).astype(jnp.int32), axis=-1
    )[..., 0]
    rounded = np.float32 if float32_targets else float
    off_target = rounded(smoothing / logits.shape[-1])
    excess = float(rounded(1.0 - smoothing) + off_target) - float(off_target)
    return masked_mean(-excess * picked - float(off_target) * log_p.sum(-1), valid)
