"""LightMBN: embeddings, one training step, top-dropblock alone."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta as flax_meta

import golden_rule
from deskpro_jax.methods import lmbn
from deskpro_jax.models.lmbn import TRIPLET_PARTS, drop_top
from deskpro_jax.train import optimisers
from deskpro_jax.weights import lmbn as tables
from deskpro_jax.weights import table
from golden_cases import Golden, steps, worst

HEAVY = ("train",)


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    if case.startswith("drop_unit"):
        _drop(golden.meta["cases"][case], golden.case(case))
    else:
        run_network(golden, case, lmbn, "x1_0", _read, _written)


def run_network(
    golden: Golden,
    case: str,
    method: ModuleType,
    backbone: str,
    read: steps.Read,
    written: Callable[[Any], dict[str, np.ndarray]],
) -> None:
    """Compares a case of a whole network."""
    meta, expected = golden.meta["cases"][case], golden.case(case)
    own = {"model.backbone": backbone, "model.feature_dim": meta["feats"]}
    if not case.startswith("train"):
        network = steps.network_of(method, steps.configured(method.__name__.split(".")[-1], own), meta, jnp.float32)
        steps.compare_embeddings(steps.embeddings(network, read, golden, meta), expected)
        return
    own |= {
        "loss.metric": "multi_similarity",
        "loss.margin": meta["margin"],
        "loss.label_smoothing": meta["label_smoothing"],
        "loss.triplet_weight": meta["ms_weight"],
        "loss.ce_weight": meta["ce_weight"],
    }
    config = steps.configured(method.__name__.split(".")[-1], own)
    with jax.enable_x64(True):
        optimizer = optimisers.adam(meta["learning_rate"], meta["weight_decay"])
        outputs, values = steps.step(method, config, read, golden, meta, optimizer, written)
    terms = values["terms"]
    np.testing.assert_allclose(terms["ce_body"], expected["ce_each"].sum(), rtol=1e-5)
    np.testing.assert_allclose(terms["multi_similarity_body"], expected["ms_each"].sum(), rtol=1e-5)
    np.testing.assert_allclose(terms["total"], expected["total"], rtol=1e-5)
    dropped = ~values["intermediates"]["dropped"].any((2, 3))
    np.testing.assert_array_equal(dropped, expected["dropped_rows"])
    steps.compare_each(outputs, expected, TRIPLET_PARTS)
    steps.compare_step(values, expected, lambda name: False, meta["weight_decay"])


def _entries(collections: Any) -> list[table.Entry]:
    return [one for one in tables.light_mbn(tables.PUBLISHED, streams="abcd") if one.collection in collections]


def _read(state_dict: Any, network: Any) -> Any:
    images = jnp.zeros((1, 32, 32, 3))
    shapes = flax_meta.unbox(jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images))
    return table.load(_entries(shapes), state_dict, shapes)


def _written(tree: Any) -> dict[str, np.ndarray]:
    return table.dump(_entries(tree), tree)


def _drop(meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    with jax.enable_x64(True):
        maps = jnp.asarray(golden_rule.images(meta["seed"], meta["input"]))
        dropped = np.asarray(drop_top(maps, meta["h_ratio"]))
    np.testing.assert_array_equal(dropped.any(-1), expected["mask"] > 0)
    assert worst(dropped.sum((1, 2)), expected["output_sum"]) < 1e-9
