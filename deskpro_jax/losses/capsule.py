"""The margin loss of capsules, on the softmax of their lengths."""

from __future__ import annotations

import jax
from jaxtyping import Array, Bool, Float, Int

from deskpro_jax.losses.reduction import float_type, masked_mean


def margin_loss(
    lengths: Float[Array, "*networks batch classes"],
    labels: Int[Array, " batch"],
    valid: Bool[Array, " batch"],
    *,
    margins: tuple[float, float] = (0.9987, 0.0013),
    absent_weight: float = 0.5,
) -> Float[Array, "*networks"]:
    """Margin loss of identity capsules.

    With p the softmax over the identities of the capsules' lengths: relu(m+ - p)^2 of the right identity, and
    `absent_weight` relu(p - m-)^2 of all others, summed over identities.

    Args:
        lengths: of the identity capsules, any number of leading axes.
        labels: identity of each row.
        valid: rows that take part.
        margins: m+ and m-. Those of ReIDCaps' code; Sabour et al. have 0.9 and 0.1, on the lengths themselves.
        absent_weight: of the other identities.

    Returns:
        The mean over valid rows, one value per leading index. Reference: Huang et al., Beyond Scalar Neuron, TCSVT
        2019, as in the released code.
    """
    present, absent = margins
    p = jax.nn.softmax(lengths.astype(float_type(lengths)))
    right = jax.nn.one_hot(labels, lengths.shape[-1], dtype=p.dtype)
    each = right * jax.nn.relu(present - p) ** 2 + absent_weight * (1 - right) * jax.nn.relu(p - absent) ** 2
    return masked_mean(each.sum(-1), valid)
