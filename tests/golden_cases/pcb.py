"""PCB: embeddings with six and four stripes, one training step with the cross-entropy, the triplet loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deskpro_jax.methods import pcb
from deskpro_jax.train import optimisers
from golden_cases import Golden, steps, worst

HEAVY = ("train",)
_NAMES = pcb.NAMES[0]


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    meta = golden.meta["cases"][case]
    (_triplet if "triplet_weight" in meta else _train if case.startswith("train") else _eval)(
        golden, meta, golden.case(case)
    )


def _config(golden: Golden, meta: dict[str, Any], **fields: Any) -> Any:
    shapes = golden.manifest[meta["manifest"]]
    parts, dim = sum(name.startswith("classifier.") for name in shapes) // 2, shapes["conv5.layers.0.weight"][0]
    own = {"model.backbone": "resnet50", "model.parts": parts, "model.feature_dim": dim, "model.dropout": 0.0}
    return steps.configured("pcb", {**own, "loss.outputs": "mean", **fields})


def _eval(golden: Golden, meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    network = steps.network_of(pcb, _config(golden, meta), meta, jnp.float32)
    pooled = steps.embeddings(network, steps.reader(_NAMES), golden, meta)["embedding"]
    unit = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)
    assert worst(unit, expected["embedding"]) < 1e-4
    assert worst(pooled[..., :: meta["pooled_stride"]], expected["pooled"]) < 1e-4
    if "squared_distance" in expected:
        flat = unit.reshape(len(unit), -1)
        squared = np.square(flat[:, None] - flat[None]).sum(-1)
        np.testing.assert_allclose(squared, expected["squared_distance"], rtol=1e-3, atol=1e-6)


def _step(golden: Golden, meta: dict[str, Any], **fields: Any) -> Any:
    own = meta["optimizer"]
    assert own["optim"] == "sgd"
    assert own["staged_lr"]
    fields = {
        "loss.label_smoothing": meta["label_smoothing"],
        "train.optimizer": "sgd",
        "train.momentum": own["momentum"],
        "train.weight_decay": own["weight_decay"],
        "train.pretrained_rate": own["base_lr_mult"],
        "loss.triplet_weight": 0.0,
        **fields,
    }
    with jax.enable_x64(True):
        config = _config(golden, meta, **fields)
        optimizer = optimisers.of_recipe(pcb.recipe(config), own["lr"], config.train)
        return steps.step(pcb, config, steps.reader(_NAMES), golden, meta, optimizer, steps.writer(_NAMES))


def _train(golden: Golden, meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    outputs, values = _step(golden, meta)
    assert worst(outputs["logits"], expected["logits"]) < 1e-5
    np.testing.assert_allclose(values["terms"]["ce_body"], expected["ce_each"].mean(), rtol=1e-5)
    np.testing.assert_allclose(values["terms"]["total"], expected["total"], rtol=1e-5)
    steps.compare_step(values, expected, _NAMES.ignores, meta["optimizer"]["weight_decay"])


def _triplet(golden: Golden, meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    weights = {"loss.triplet_weight": meta["triplet_weight"], "loss.ce_weight": meta["ce_weight"]}
    step = golden.meta["cases"]["train"] | meta
    outputs, values = _step(golden, step, **weights, **{"loss.margin": meta["margin"]})
    features = outputs["features"].reshape(*expected["features"].shape[:2], -1)[..., :: meta["features_stride"]]
    assert worst(features, expected["features"]) < 1e-5
    np.testing.assert_allclose(values["terms"]["triplet_body"], expected["triplet"], rtol=1e-5)
    np.testing.assert_allclose(values["terms"]["total"], expected["total"], rtol=1e-5)
