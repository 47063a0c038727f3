"""MGN: embeddings with either pooling and one training step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deskpro_jax.methods import mgn
from deskpro_jax.train import optimisers
from golden_cases import Golden, steps

HEAVY = ("train",)
_NAMES = mgn.NAMES[0]
_SIZE = (96, 32)


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    (_train if case.startswith("train") else _eval)(golden, golden.meta["cases"][case], golden.case(case))


def _config(meta: dict[str, Any], **fields: Any) -> Any:
    own = {"model.backbone": "resnet50", "model.pool": meta["pool"], "model.feature_dim": meta["feats"]}
    return steps.configured("mgn", {**own, **fields})


def _eval(golden: Golden, meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    network = steps.network_of(mgn, _config(meta), meta, jnp.float32)
    steps.compare_embeddings(steps.embeddings(network, steps.reader(_NAMES, _SIZE), golden, meta), expected)


def _train(golden: Golden, meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    fields = {
        "loss.margin": meta["margin"],
        "loss.label_smoothing": meta["label_smoothing"],
        "loss.triplet_weight": meta["triplet_weight"],
        "loss.ce_weight": meta["ce_weight"],
    }
    with jax.enable_x64(True):
        optimizer = optimisers.adam(meta["learning_rate"], meta["weight_decay"])
        read, written = steps.reader(_NAMES, _SIZE), steps.writer(_NAMES)
        outputs, values = steps.step(mgn, _config(meta, **fields), read, golden, meta, optimizer, written)
    terms = values["terms"]
    np.testing.assert_allclose(terms["ce_body"], expected["ce_each"].sum(), rtol=1e-5)
    np.testing.assert_allclose(terms["triplet_body"], expected["triplet_each"].sum(), rtol=1e-5)
    np.testing.assert_allclose(terms["total"], expected["total"], rtol=1e-5)
    steps.compare_each(outputs, expected, mgn.TRIPLET_PARTS)
    steps.compare_step(values, expected, _NAMES.ignores, meta["weight_decay"])
