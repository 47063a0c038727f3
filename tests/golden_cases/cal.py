"""CAL: embeddings, a training step before and after the clothes losses begin, six steps in a row, losses alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import golden_rule
from deskpro_jax import losses
from deskpro_jax.methods import cal
from deskpro_jax.models.contract import Counts
from deskpro_jax.train import optimisers
from deskpro_jax.train import step as train
from golden_cases import Golden, cast, outfits, steps, tensors, worst

HEAVY = ("train", "before", "after", "run")
_NAMES = cal.NAMES[0]
_CLOTHES = "clothes_classifier.weight"


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    expected = golden.case(case)
    {
        "eval": _eval,
        "train": _train,
        "before": _step,
        "after": _step,
        "run": _run,
        "adversarial_unit": _adversarial,
        "memory_unit": _memory,
    }[case](golden, expected)


def _config(meta: dict[str, Any], clothes_epoch: int = 0) -> Any:
    fields = {
        "model.backbone": "resnet50",
        "loss.label_smoothing": meta["label_smoothing"],
        "loss.triplet_weight": meta["pair_weight"],
        "loss.triplet_distance": "cosine",
        "loss.margin": meta["margin"],
        "loss.clothes_epoch": clothes_epoch,
        "loss.clothes_scale": meta["scale"],
        "loss.clothes_epsilon": meta["epsilon"],
        "loss.clothes_rate": meta["learning_rate"],
        "train.weight_decay": meta["weight_decay"],
    }
    return steps.configured("cal", fields)


def _state(golden: Golden) -> dict[str, np.ndarray]:
    """Returns the network's tensors as a file has them: those of the part `model` without its name."""
    filled = tensors(golden.manifest, golden.meta["weights_seed"])
    return {name.removeprefix("model."): value for name, value in filled.items() if name != _CLOTHES}


def _written(tree: Any) -> dict[str, np.ndarray]:
    named = steps.writer(_NAMES)(tree)
    return {name if name.startswith("classifier.") else f"model.{name}": value for name, value in named.items()}


def _own(golden: Golden) -> dict[str, Any]:
    filled = outfits.classifier(_CLOTHES, golden.manifest[_CLOTHES], golden.meta["weights_seed"])
    return {"clothes_body": filled}


def _eval(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta
    network = steps.network_of(cal, _config(meta), meta, jnp.float32)
    held = cast(steps.reader(_NAMES)(_state(golden), network), jnp.float32)
    images = jnp.asarray(golden_rule.images(meta["eval_seed"], meta["eval_image"]), jnp.float32)
    apply = jax.jit(lambda x: network.apply(held, x, train=False)[0]["embeddings"][0])
    one, mirrored = apply(images), apply(images[:, :, ::-1])
    assert worst(one, expected["features"]) < 1e-4
    joined = (one + mirrored) / jnp.linalg.norm(one + mirrored, axis=-1, keepdims=True)
    assert worst(joined, expected["embeddings"]) < 1e-4


def _one_step(golden: Golden, clothes_epoch: int) -> tuple[Any, dict[str, Any]]:
    meta = golden.meta
    names = {"labels": meta["identities"], "input": meta["train_image"], "input_seed": meta["train_seed"]}
    with jax.enable_x64(True):
        config = _config(meta, clothes_epoch)
        optimizer = optimisers.of_recipe(cal.recipe(config), meta["learning_rate"], config.train)
        fields = outfits.batch_fields(meta["clothes_per_identity"], meta["identities"], meta["clothes"])
        read = steps.reader(_NAMES)
        return steps.step(
            cal,
            config,
            read,
            golden,
            meta | names,
            optimizer,
            _written,
            _state(golden),
            own=_own(golden),
            fields=fields,
        )


def _train(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    outputs, values = _one_step(golden, 1)
    assert worst(outputs["features"][0], expected["features"]) < 1e-5
    assert worst(outputs["logits"][0], expected["logits"]) < 1e-5
    with jax.enable_x64(True):
        kernel = values["own"]["before"]["clothes_body"]["classifier"]["kernel"]
        assert worst(losses.cosines(outputs["features"][0], kernel), expected["clothes_logits"]) < 1e-5


def _step(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta, begun = golden.meta, "clothes_classifier_grad_norm" in expected
    outputs, values = _one_step(golden, 0 if begun else 1)
    terms = values["terms"]
    own_names = {"identity": "ce_body", "clothes": "clothes_body", "adversarial": "adversarial_body", "total": "total"}
    for name, own in own_names.items():
        np.testing.assert_allclose(terms[own], expected[name], rtol=1e-5, err_msg=name)
    own = values["own"]
    with jax.enable_x64(True):
        features, labels = jnp.asarray(outputs["features"]), jnp.asarray(meta["identities"])
        rows = jnp.ones(labels.shape, bool)
        triplet = losses.batch_hard_triplet(features, labels, rows, margin=meta["margin"], cosine=True)
        np.testing.assert_allclose(triplet[0], expected["triplet"], rtol=1e-5)
        if begun:
            moved = losses.cosines(features[0], own["after"]["clothes_body"]["classifier"]["kernel"])
            assert worst(moved, expected["adversarial_logits"]) < 1e-5
    for when, tree in own.items():
        values[when][_CLOTHES] = tree["clothes_body"]["classifier"]["kernel"].T
    norms = dict(zip(expected["grad_names"], expected["grad_norms"], strict=True))
    if begun:
        norms[_CLOTHES] = expected["clothes_classifier_grad_norm"]
    else:
        np.testing.assert_array_equal(values["after"][_CLOTHES], values["before"][_CLOTHES])
        del values["gradients"][_CLOTHES]
    expected = expected | {"grad_names": np.array(list(norms)), "grad_norms": np.array(list(norms.values()))}
    steps.compare_step(
        values, expected, _NAMES.ignores if begun else lambda name: name == _CLOTHES, meta["weight_decay"]
    )


def _run(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta
    per_identity, own_names = meta["clothes_per_identity"], {"identity": "ce_body", "clothes": "clothes_body"}
    own_names |= {"triplet": "triplet_body", "adversarial": "adversarial_body", "total": "total"}
    batch, images = meta["train_image"][0], meta["images_per_identity"]
    with jax.enable_x64(True):
        config = _config(meta, meta["run"]["adversarial_from_step"])
        recipe = cal.recipe(config)
        optimizer = optimisers.of_recipe(recipe, meta["learning_rate"], config.train, 1)
        network = steps.network_of(cal, config, meta, jnp.float64)
        held = cast(steps.reader(_NAMES)(_state(golden), network), jnp.float64)
        variables = {name: {"body_stream": tree} for name, tree in held.items()}
        variables["params"][optimisers.LOSS] = cast(_own(golden), jnp.float64)
        module = cal.build(config, Counts(meta["num_classes"]))
        state = train.create_state(variables, optimizer)
        step = jax.jit(
            lambda state, inputs: train.update(state, inputs, module, optimizer, recipe.losses, epoch=state.step)[:2]
        )
        found: dict[str, list[float]] = {name: [] for name in own_names}
        for s in range(meta["run"]["steps"]):
            places = [(j, t) for j in range(batch // images) for t in range(images)]
            identities = [(2 * j + 3 * s) % meta["num_classes"] for j, _ in places]
            first = np.cumsum([0, *per_identity])
            clothes = [first[i] + (t + s) % per_identity[i] for i, (_, t) in zip(identities, places, strict=True)]
            seed = meta["weights_seed"] + 1000 * (s + 1) + 1
            inputs = {
                "body": jnp.asarray(golden_rule.images(seed, meta["train_image"])),
                "identity": jnp.asarray(identities, jnp.int32),
                "valid": jnp.ones(batch, bool),
                **outfits.batch_fields(per_identity, identities, clothes),
            }
            state, terms = step(state, inputs)
            for name, own in own_names.items():
                found[name].append(float(terms[own]) if own in terms else np.nan)
        for name, values in found.items():
            if not np.isnan(values).any():  # without a weight there is no triplet loss
                np.testing.assert_allclose(values, expected[name], rtol=1e-4, err_msg=name)
        size = [len(expected["embeddings"]), *meta["eval_image"][1:]]
        x = jnp.asarray(golden_rule.images(meta["eval_seed"], size))
        apply = jax.jit(lambda v, x: module.apply(v, {"body": x}, train=False)[0]["body"]["embeddings"][0])
        joined = apply(state.variables, x) + apply(state.variables, x[:, :, ::-1])
        assert worst(joined / jnp.linalg.norm(joined, axis=-1, keepdims=True), expected["embeddings"]) < 1e-3


def _adversarial(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    own = golden.meta["adversarial_unit"]
    per_identity = own["clothes_per_identity"]
    fields = outfits.batch_fields(per_identity, own["identities"], own["clothes"])
    shape = len(own["identities"]), sum(per_identity)
    with jax.enable_x64(True):
        cosine = jnp.tanh(0.5 * np.random.default_rng(own["seed"]).standard_normal(shape))
        rows, mine = jnp.ones(shape[0], bool), outfits.own_classes(fields, shape[1])
        numbers = {"scale": own["scale"], "epsilon": own["epsilon"]}
        value, gradient = jax.value_and_grad(
            lambda x: losses.clothes_adversarial(x, fields["clothes"], mine, rows, **numbers)
        )(cosine)
    np.testing.assert_allclose(value, expected["loss"], rtol=1e-9)
    assert worst(gradient, expected["grad"]) < 1e-6  # stored as float32


def _memory(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    own = golden.meta["memory_unit"]
    per_identity, dim, full = own["clothes_per_identity"], own["dim"], False
    with jax.enable_x64(True):
        memory, seen = jnp.zeros((sum(per_identity), dim)), jnp.zeros(sum(per_identity), bool)
        for call, (identities, worn) in enumerate(zip(own["identities"], own["clothes"], strict=True)):
            fields = outfits.batch_fields(per_identity, identities, worn)
            features = jnp.asarray(np.random.default_rng(own["seed"] + call).standard_normal((len(worn), dim)))
            rows, clothes = jnp.ones(len(worn), bool), fields["clothes"]
            memory, seen = losses.update_clothes_memory(
                memory, seen, features, clothes, rows, full=full, momentum=own["momentum"]
            )
            full = bool(seen.all())
            mine = outfits.own_classes(fields, len(seen))
            numbers = {"scale": own["scale"], "epsilon": own["epsilon"], "seen": seen}
            value, gradient = jax.value_and_grad(
                lambda x, memory=memory, mine=mine, clothes=clothes, rows=rows, numbers=numbers: (
                    losses.clothes_adversarial(losses.cosines(x, memory.T), clothes, mine, rows, **numbers)
                )
            )(features)
            np.testing.assert_allclose(value, expected["loss"][call], rtol=1e-6)  # all stored as float32
            assert worst(gradient, expected["grad"][call]) < 1e-6
            assert worst(memory, expected["memory"][call]) < 1e-6
            np.testing.assert_array_equal(seen, expected["label_memory"][call] != -1)
            assert full == expected["filled"][call]
