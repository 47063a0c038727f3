"""AIM: embeddings, a training step before and after the losses on clothes begin, the fusion alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta as flax_meta

import golden_rule
from deskpro_jax import losses
from deskpro_jax.methods import aim
from deskpro_jax.train import optimisers
from deskpro_jax.weights import published, table
from golden_cases import Golden, cast, outfits, steps, tensors, worst

HEAVY = ("train", "before", "after")
_NAMES = aim.NAMES[0]
_CLOTHES = {"clothes_body": "clothes_classifier.weight", "clothes2_body": "clothes_classifier2.weight"}
_TERMS = {
    "identity": "ce_body",
    "clothes": "clothes_body",
    "clothes2": "clothes2_body",
    "kl": "divergence_body",
    "adversarial": "adversarial_body",
    "counterfactual": "counterfactual_body",
}


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    cases = {"eval": _eval, "train": _train, "before": _step, "after": _step, "fusion_unit": _fusion}
    cases[case](golden, golden.case(case))


def _config(meta: dict[str, Any], manifest: dict[str, Any], clothes_epoch: int = 0) -> Any:
    fields = {
        "model.backbone": "resnet50",
        "model.feature_dim": manifest["model2.global_conv.weight"][0],
        "data.body_size": tuple(meta["train_image"][2:]),
        "loss.label_smoothing": meta["label_smoothing"],
        "loss.triplet_weight": meta["pair_weight"],
        "loss.triplet_distance": "cosine",
        "loss.margin": meta["margin"],
        "loss.clothes_epoch": clothes_epoch,
        "loss.clothes_scale": meta["scale"],
        "loss.clothes_epsilon": meta["epsilon"],
        "loss.clothes_rate": meta["learning_rate"],
        "loss.clothes_divergence": meta["k_kl"],
        "loss.counterfactual_weight": meta["k_cal"],
        "train.weight_decay": meta["weight_decay"],
    }
    return steps.configured("aim", fields)


def _state(golden: Golden) -> dict[str, np.ndarray]:
    """Returns the tensors of the networks; the classifiers of clothes are those of terms."""
    filled = tensors(golden.manifest, golden.meta["weights_seed"])
    return {name: value for name, value in filled.items() if name not in _CLOTHES.values()}


def _read(golden: Golden) -> steps.Read:
    return steps.reader(_NAMES, tuple(golden.meta["train_image"][2:]))


def _eval(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta
    network = steps.network_of(aim, _config(meta, golden.manifest), meta, jnp.float32)
    held = cast(_read(golden)(_state(golden), network), jnp.float32)
    images = jnp.asarray(golden_rule.images(meta["eval_seed"], meta["eval_image"]), jnp.float32)
    apply = jax.jit(lambda x: network.apply(held, x, train=False)[0]["embeddings"][0])
    one, mirrored = apply(images), apply(images[:, :, ::-1])
    assert worst(one, expected["features"]) < 1e-4
    joined = (one + mirrored) / jnp.linalg.norm(one + mirrored, axis=-1, keepdims=True)
    assert worst(joined, expected["embeddings"]) < 1e-4


def _one_step(golden: Golden, clothes_epoch: int) -> tuple[Any, dict[str, Any]]:
    meta = golden.meta
    names = {"labels": meta["identities"], "input": meta["train_image"], "input_seed": meta["train_seed"]}
    own = {
        term: outfits.classifier(name, golden.manifest[name], meta["weights_seed"]) for term, name in _CLOTHES.items()
    }
    with jax.enable_x64(True):
        config = _config(meta, golden.manifest, clothes_epoch)
        optimizer = optimisers.of_recipe(aim.recipe(config), meta["learning_rate"], config.train)
        fields = outfits.batch_fields(meta["clothes_per_identity"], meta["identities"], meta["clothes"])
        written = steps.writer(_NAMES)
        return steps.step(
            aim, config, _read(golden), golden, meta | names, optimizer, written, _state(golden), own=own, fields=fields
        )


def _kernels(values: dict[str, Any], when: str) -> tuple[np.ndarray, np.ndarray]:
    one, other = (values["own"][when][term]["classifier"]["kernel"] for term in _CLOTHES)
    return one, other


def _train(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    outputs, values = _one_step(golden, 1)
    middle, feature = values["intermediates"], outputs["features"][0]
    assert worst(feature, expected["features"]) < 1e-5
    stride = golden.manifest[_CLOTHES["clothes2_body"]][1] // expected["features2"].shape[1]
    assert worst(middle["clothes_feature"][:, ::stride], expected["features2"]) < 1e-5
    assert worst(middle["fused_feature"][:, ::stride], expected["fused"]) < 1e-5
    assert worst(outputs["logits"][0], expected["logits"]) < 1e-5
    assert worst(middle["fused_logits"], expected["fused_logits"]) < 1e-5
    one, other = _kernels(values, "before")
    with jax.enable_x64(True):
        assert worst(losses.cosines(feature, one), expected["clothes_logits"]) < 1e-5
        assert worst(losses.cosines(middle["clothes_feature"], other), expected["clothes_logits2"]) < 1e-5


def _step(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta, begun = golden.meta, "clothes_classifier_grad_norm" in expected
    outputs, values = _one_step(golden, 0 if begun else 1)
    terms = values["terms"]
    for name, own in _TERMS.items():
        if name in expected and (begun or name != "kl"):  # before the start it is of another classifier, and unused
            np.testing.assert_allclose(terms[own], expected[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(terms["total"], expected["total"] + expected["total2"], rtol=1e-5)
    one, _ = _kernels(values, "after")
    with jax.enable_x64(True):
        features, labels = jnp.asarray(outputs["features"]), jnp.asarray(meta["identities"])
        rows = jnp.ones(labels.shape, bool)
        triplet = losses.batch_hard_triplet(features, labels, rows, margin=meta["margin"], cosine=True)
        np.testing.assert_allclose(triplet[0], expected["triplet"], rtol=1e-5)
        if begun:
            assert worst(losses.cosines(features[0], one), expected["adversarial_logits"]) < 1e-5
    for when, tree in values["own"].items():
        for term, name in _CLOTHES.items():
            values[when][name] = tree[term]["classifier"]["kernel"].T
    names = [*expected["grad_names"], *expected["model2/grad_names"]]
    norms = dict(zip(names, [*expected["grad_norms"], *expected["model2/grad_norms"]], strict=True))
    still: set[str] = set()
    if begun:
        norms[_CLOTHES["clothes_body"]] = expected["clothes_classifier_grad_norm"]
    else:
        still = {_CLOTHES["clothes_body"], *(name for name in values["gradients"] if name.startswith("fuse."))}
        for name in still:
            np.testing.assert_array_equal(values["after"][name], values["before"][name], err_msg=name)
            del values["gradients"][name]
    expected = expected | {"grad_names": np.array(list(norms)), "grad_norms": np.array(list(norms.values()))}
    steps.compare_step(values, expected, lambda name: _NAMES.ignores(name) and name in still, meta["weight_decay"])


def _fusion(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    own = golden.meta["fusion_unit"]
    shapes = {
        "attentions.conv.weight": (8, own["shape"][1], 1, 1),
        **{f"attentions.bn.{name}": (8,) for name in ("weight", "bias", "running_mean", "running_var")},
        "linear.weight": (own["feature_dim"], 8 * own["shape"][1]),
        **{f"bn.{name}": (own["feature_dim"],) for name in ("weight", "bias", "running_mean", "running_var")},
    }
    state = {
        f"fuse.{name}": golden_rule.fill(f"fuse.{name}", shape, own["weights_seed"]) for name, shape in shapes.items()
    }
    maps = [np.abs(golden_rule.images(own["seed"] + i, own["shape"])) for i in range(2)]
    grad_of = np.random.default_rng(own["seed"] + 2).standard_normal(expected["fused"].shape)
    with jax.enable_x64(True):
        fusion = aim.Fusion(own["feature_dim"], jnp.float64)
        init = jax.eval_shape(lambda key: fusion.init(key, *maps, train=False, valid=None), jax.random.key(0))
        wanted = {collection: {"fusion": tree} for collection, tree in flax_meta.unbox(init).items()}
        filled = table.load(published.entries(_NAMES, wanted)[0], state, wanted)
        held = cast({collection: tree["fusion"] for collection, tree in filled.items()}, jnp.float64)
        fused, back = jax.vjp(
            lambda x: fusion.apply(held, x, maps[1], train=True, valid=None, mutable=["batch_stats"])[0],
            jnp.asarray(maps[0]),
        )
        (gradient,) = back(jnp.asarray(grad_of))
    assert worst(fused, expected["fused"]) < 1e-6
    stride = own["shape"][1] // expected["grad"].shape[1]
    assert worst(np.asarray(gradient).transpose(0, 3, 1, 2)[:, ::stride], expected["grad"]) < 1e-6
