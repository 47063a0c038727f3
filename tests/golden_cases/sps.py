"""Pixel sampling: embeddings, sampled copies, one training step, sampling and consistency alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import golden_rule
from deskpro_jax import losses
from deskpro_jax.data.load import pixel_sampling
from deskpro_jax.methods import sps
from deskpro_jax.train import optimisers
from golden_cases import Golden, cast, steps, tensors, worst

HEAVY = ("train", "loss", "grad_names", "grad_norms", "after")  # one training step under several names
_GARMENTS = np.array([0, 0, 1, 2, 0, 0], np.uint8)  # of the reference's labels


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    if case in HEAVY:
        if case == next(name for name in HEAVY if name in golden.cases):
            step(golden)
        return
    {"eval": evaluate, "sampling": _sampling, "consistency": _consistency}[case](golden, golden.case(case))


def _config(golden: Golden) -> Any:
    meta, pyramid = golden.meta, "global_conv.weight" in golden.manifest
    fields = sps.VARIANTS["sps_hpm" if pyramid else "sps"] | {
        "data.body_size": tuple(meta["size"]),
        "loss.margin": meta["margin"],
        "loss.label_smoothing": meta["label_smoothing"],
        "train.momentum": meta["optimizer"]["momentum"],
        "train.weight_decay": meta["optimizer"]["weight_decay"],
        "train.optimizer": meta["optimizer"]["name"].lower(),
    }
    if pyramid:
        fields["model.feature_dim"] = golden.manifest["global_conv.weight"][0]
    return steps.configured("sps", fields)


def _names(golden: Golden) -> Any:
    return sps.NAMES[1 if "global_conv.weight" in golden.manifest else 0]


def _state(golden: Golden) -> dict[str, np.ndarray]:
    return tensors(golden.manifest, golden.meta["weights_seed"], golden.meta["gain"])


def evaluate(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    """Compares embeddings."""
    meta = golden.meta
    network = steps.network_of(sps, _config(golden), meta, jnp.float32)
    read = steps.reader(_names(golden), tuple(meta["size"]))
    held = cast(read(_state(golden), network), jnp.float32)
    images = jnp.asarray(golden_rule.images(meta["eval_seed"], [meta["eval_batch"], 3, *meta["size"]]), jnp.float32)
    apply = jax.jit(lambda held, x: network.apply(held, x, train=False)[0]["embeddings"][0])
    one, flipped = apply(held, images), apply(held, images[:, :, ::-1])
    assert worst(one, expected["features"]) < 1e-4
    assert worst(flipped, expected["features_flipped"]) < 1e-4
    joined = (one + flipped) / jnp.linalg.norm(one + flipped, axis=1, keepdims=True)
    assert worst(joined, expected["embedding"]) < 1e-4


def _garments(meta: dict[str, Any], batch: int) -> np.ndarray:
    block, (height, width) = meta["mask_block"], meta["size"]
    shape = batch, 6, -(-height // block), -(-width // block)
    parts = np.random.default_rng(meta["mask_seed"]).random(shape).argmax(1)
    return _GARMENTS[np.kron(parts, np.ones((block, block), int))[:, :height, :width]]


def step(golden: Golden) -> None:
    """Compares sampled copies and one training step."""
    meta, names = golden.meta, _names(golden)
    expected = golden.case("train")
    batch, optimizer_ = len(meta["labels"]), meta["optimizer"]
    shape = [batch, 3, *meta["size"]]
    garments, orders = _garments(meta, batch), expected["permutations"]
    with jax.enable_x64(True):
        images = jnp.asarray(golden_rule.images(meta["train_seed"], shape))
        sampled = jax.jit(pixel_sampling.flat)(images, jnp.asarray(garments), jnp.asarray(orders))
        if "sampled" in expected:
            planes = np.asarray(sampled).transpose(0, 3, 1, 2)
            np.testing.assert_array_equal(planes[:, :, ::8, ::8].astype(np.float32), expected["sampled"])
            np.testing.assert_allclose(planes.mean((2, 3)), expected["sampled_mean"], rtol=1e-9)
        doubled = sps.in_other_clothes({"body": images, "valid": jnp.ones(batch, bool)}, sampled)
        config = _config(golden)
        optimizer = optimisers.of_recipe(sps.recipe(config), optimizer_["learning_rate"], config.train)
        known = {"labels": [*meta["labels"]] * 2, "input": shape, "input_seed": meta["train_seed"]}
        outputs, values = steps.step(
            sps,
            config,
            steps.reader(names, tuple(meta["size"])),
            golden,
            meta | known,
            optimizer,
            steps.writer(names),
            _state(golden),
            fields=doubled,
        )
    assert worst(outputs["logits"].reshape(expected["logits"].shape), expected["logits"]) < 1e-5
    features = outputs["features"]
    if "features_mean" in expected:
        assert worst(features.mean(-1), expected["features_mean"]) < 1e-5
        features = features[..., : expected["features"].shape[-1]]
    assert worst(features.reshape(expected["features"].shape), expected["features"]) < 1e-5
    terms, loss = values["terms"], golden.case("loss")
    for name, own in (("cross_entropy", "ce_body"), ("triplet", "triplet_body"), ("total", "total")):
        np.testing.assert_allclose(terms[own], loss[name].sum(), rtol=1e-5, err_msg=name)
    if "consistency" in loss:
        np.testing.assert_allclose(terms["consistency_body"], loss["consistency"], rtol=1e-5)
        squared = np.square(outputs["features"][0][:batch] - outputs["features"][0][batch:]).sum(-1)
        np.testing.assert_allclose(squared, expected["squared_distances"], rtol=1e-5)
    stored = {name: golden.arrays[name] for name in ("grad_names", "grad_norms")}
    frozen = set(meta.get("frozen", ()))
    stored["no_gradient"] = np.array([*meta.get("no_gradient", ()), *frozen])
    stored |= {f"after/{name}": array for name, array in golden.case("after").items()}
    steps.compare_step(values, stored, names.ignores, optimizer_["weight_decay"])


def _sampling(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    garments = jnp.asarray(_GARMENTS[expected["labels"]])
    with jax.enable_x64(True):
        images = jnp.asarray(expected["images"].transpose(0, 2, 3, 1))
        sampled = jax.jit(pixel_sampling.flat)(images, garments, jnp.asarray(expected["permutations"]))
    np.testing.assert_array_equal(np.asarray(sampled).transpose(0, 3, 1, 2), expected["output"])


def _consistency(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta["consistency"]
    rng = np.random.default_rng(meta["seed"])
    first, second = (meta["scale"] * rng.standard_normal(meta["shape"]) for _ in range(2))
    with jax.enable_x64(True):
        rows = jnp.ones(len(first), bool)
        value, gradient = jax.value_and_grad(lambda x: losses.consistency(x, jnp.asarray(second), rows))(
            jnp.asarray(first)
        )
    np.testing.assert_allclose(value, expected["loss"], rtol=1e-9)
    assert worst(gradient, expected["grad_first"]) < 1e-9
