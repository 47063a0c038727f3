"""Training losses, one file per family: pure functions, each with a mask of the rows that take part."""

from deskpro_jax.losses.attention import MASK_RULES, attention_loss, cloth_target
from deskpro_jax.losses.capsule import margin_loss as capsule_margin
from deskpro_jax.losses.clothes import adversarial as clothes_adversarial
from deskpro_jax.losses.clothes import symmetric_divergence
from deskpro_jax.losses.clothes import update_memory as update_clothes_memory
from deskpro_jax.losses.cosine import cosines
from deskpro_jax.losses.distillation import knowledge_propagation
from deskpro_jax.losses.identification import cross_entropy
from deskpro_jax.losses.metric import batch_hard_triplet, centre_loss, consistency, multi_similarity, pairwise_distance
from deskpro_jax.losses.reduction import masked_mean
from deskpro_jax.losses.terms import centre_term, identity_terms, weighted_terms

__all__ = [
    "MASK_RULES",
    "attention_loss",
    "batch_hard_triplet",
    "capsule_margin",
    "centre_loss",
    "centre_term",
    "cloth_target",
    "clothes_adversarial",
    "consistency",
    "cosines",
    "cross_entropy",
    "identity_terms",
    "knowledge_propagation",
    "masked_mean",
    "multi_similarity",
    "pairwise_distance",
    "symmetric_divergence",
    "update_clothes_memory",
    "weighted_terms",
]
