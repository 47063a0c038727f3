"""Checks the fields of a configuration that say how the loss is computed: `loss.*`."""

from __future__ import annotations

import ml_collections

from deskpro_jax.config import expect
from deskpro_jax.losses.attention import MASK_RULES
from deskpro_jax.losses.extra import extra_terms
from deskpro_jax.losses.terms import DISTANCES, METRICS, OUTPUTS


def check(config: ml_collections.ConfigDict) -> None:
    """Checks `loss.*`, and that the functions that `loss.extra` names can be imported.

    Raises:
        InputError: a field has a value that cannot be used; the message names it.
    """
    expect.number(config, "loss.attention_weight", least=0)
    expect.number(config, "loss.mask_epsilon", least=0, most=1)
    expect.choice(config, "loss.mask_rule", MASK_RULES)
    expect.number(config, "loss.alpha", least=0, most=1)
    expect.number(config, "loss.temperature", above=0)
    expect.number(config, "loss.ce_weight", least=0)
    expect.choice(config, "loss.metric", METRICS)
    expect.choice(config, "loss.triplet_distance", DISTANCES)
    expect.number(config, "loss.margin", least=0)
    expect.number(config, "loss.triplet_weight", least=0)
    expect.integer(config, "loss.triplet_start", least=0)
    expect.choice(config, "loss.outputs", OUTPUTS)
    expect.number(config, "loss.centre_weight", least=0)
    expect.number(config, "loss.centre_rate", least=0)
    expect.boolean(config, "loss.soft_margin")
    expect.numbers_of(config, "loss.capsule_margins", 2, least=0, most=1)
    expect.number(config, "loss.capsule_absent", least=0)
    expect.integer(config, "loss.clothes_epoch", least=0)
    expect.number(config, "loss.clothes_scale", above=0)
    expect.number(config, "loss.clothes_epsilon", least=0, most=1)
    expect.number(config, "loss.clothes_rate", least=0)
    expect.number(config, "loss.clothes_divergence", least=0)
    expect.number(config, "loss.counterfactual_weight", least=0)
    expect.number(config, "loss.consistency_weight", least=0)
    expect.number(config, "loss.label_smoothing", least=0, most=1)
    for name in ("cluster_k1", "cluster_k2"):
        expect.integer(config, f"loss.{name}", least=1)
    expect.number(config, "loss.cluster_eps", above=0)
    expect.number(config, "loss.fine_scale", above=0)
    expect.number(config, "loss.fine_smoothing", least=0, most=1)
    for name in ("fine_weight", "recomposition_weight"):
        expect.number(config, f"loss.{name}", least=0)
    extra_terms(expect.texts(config, "loss.extra"))
