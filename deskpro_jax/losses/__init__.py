"""Training losses, one file per family: pure functions, each with a mask of the rows that take part."""

from deskpro_jax.losses.attention import MASK_RULES, attention_loss, cloth_target
from deskpro_jax.losses.distillation import knowledge_propagation
from deskpro_jax.losses.identification import cross_entropy
from deskpro_jax.losses.metric import batch_hard_triplet, pairwise_distance
from deskpro_jax.losses.reduction import masked_mean

__all__ = [
    "MASK_RULES",
    "attention_loss",
    "batch_hard_triplet",
    "cloth_target",
    "cross_entropy",
    "knowledge_propagation",
    "masked_mean",
    "pairwise_distance",
]
