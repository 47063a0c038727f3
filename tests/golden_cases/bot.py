"""BoT: LightMBN's form and the authors', one training step, the units of its losses, its schedule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import golden_rule
from deskpro_jax.methods import bot
from deskpro_jax.train import optimisers
from golden_cases import Golden, cast, steps, tensors, worst

HEAVY = ("train",)
_NAMES = {"lightmbn": bot.NAMES[0], "strong_baseline": bot.NAMES[1]}


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    kind = {"strong": _authors, "train": _train}.get(case.split("_")[0], _eval)
    kind(golden, golden.meta["cases"][case], golden.case(case))


def _config(meta: dict[str, Any], **fields: Any) -> Any:
    return steps.configured("bot", {"model.backbone": "resnet50", **fields})


def _eval(golden: Golden, meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    network = steps.network_of(bot, _config(meta), meta, jnp.float32)
    found = steps.embeddings(network, steps.reader(_NAMES[meta["manifest"]]), golden, meta)
    steps.compare_embeddings(found, expected)


def _authors(golden: Golden, meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    config, read = _config(meta, **{"model.stem_relu": False}), steps.reader(_NAMES[meta["manifest"]])
    trained = {name: array for name, array in expected.items() if name.startswith("train_")}
    found = steps.embeddings(steps.network_of(bot, config, meta, jnp.float32), read, golden, meta)
    if meta["neck_feat"] == "before":
        found["embedding"] = found["before_neck"]
    steps.compare_embeddings(found, {name: array for name, array in expected.items() if name not in trained})
    with jax.enable_x64(True):  # the neck magnifies the differences between three images, and rounding with them
        network = steps.network_of(bot, config, meta, jnp.float64)
        held = cast(read(tensors(steps.manifest_of(golden, meta), meta["weights_seed"]), network), jnp.float64)
        images = jnp.asarray(golden_rule.images(meta["input_seed"], meta["input"]), jnp.float64)
        outputs = jax.jit(lambda held, x: network.apply(held, x, train=True, mutable=["batch_stats"])[0][0])(
            held, images
        )
    for name, array in trained.items():
        assert worst(outputs[name.removeprefix("train_")][0], array) < 1e-5, name


def _train(golden: Golden, meta: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    names = _NAMES[meta["manifest"]]
    fields = {
        "loss.margin": meta["margin"],
        "loss.label_smoothing": meta["label_smoothing"],
        "loss.triplet_weight": meta["triplet_weight"],
        "loss.ce_weight": meta["ce_weight"],
    }
    with jax.enable_x64(True):
        optimizer = optimisers.adam(meta["learning_rate"], meta["weight_decay"])
        outputs, values = steps.step(
            bot, _config(meta, **fields), steps.reader(names), golden, meta, optimizer, steps.writer(names)
        )
    terms = values["terms"]
    np.testing.assert_allclose(terms["ce_body"], expected["ce_each"].sum(), rtol=1e-5)
    np.testing.assert_allclose(terms["triplet_body"], expected["triplet_each"].sum(), rtol=1e-5)
    np.testing.assert_allclose(terms["total"], expected["total"], rtol=1e-5)
    steps.compare_each(outputs, expected, (0,))
    steps.compare_step(values, expected, names.ignores, meta["weight_decay"])
