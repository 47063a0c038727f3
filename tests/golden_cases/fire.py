"""FIRe2: embeddings, a training step before and after the clustering begins, clusters, losses, learning rates."""

from __future__ import annotations

from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import golden_rule
from deskpro_jax.losses import clusters
from deskpro_jax.losses.fine_classes import FIELDS, FineClasses, attribute_aware
from deskpro_jax.methods import fire
from deskpro_jax.models.recomposition import recompose
from deskpro_jax.train import optimisers, schedules
from golden_cases import Golden, cast, steps, tensors, variables, worst

HEAVY = ("train", "before", "after")
_NAMES = fire.NAMES[0]
_CENTRES = "fg_classifier.weight"  # which the reference has while it trains, and saves nowhere


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    kinds: dict[str, Any] = {
        "eval": _eval,
        "train": _outputs,
        "schedule": _schedule,
        "attribute_unit": _attribute,
        "swap_unit": _swap,
        "cluster_unit": _cluster,
    }
    if case in kinds:
        with jax.enable_x64(case.endswith("_unit")):
            kinds[case](golden, golden.case(case))
    else:
        _step(golden, case)


def _config(golden: Golden, **fields: Any) -> Any:
    meta = golden.meta
    own = fire.VARIANTS["fire"] | {
        "model.parts": meta["parts"],
        "loss.margin": meta["margin"],
        "loss.label_smoothing": meta["label_smoothing"],
        "loss.triplet_start": meta["fine_start_epoch"],
        "loss.fine_scale": meta["scale"],
        "loss.fine_smoothing": meta["epsilon"],
        "loss.recomposition_weight": meta["far_weight"],
        "train.base_lr": meta["learning_rate"],
        "train.weight_decay": meta["weight_decay"],
        "train.milestones": tuple(meta["milestones"]),
        "train.epochs": meta["epochs"],
    }
    return steps.configured("fire", own | fields)


def _state(golden: Golden) -> dict[str, np.ndarray]:
    """Returns the reference's tensors under the names that a checkpoint has them by, and the centres."""
    state = tensors(golden.manifest, golden.meta["weights_seed"])
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


def _eval(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta
    network = steps.network_of(fire, _config(golden), meta, jnp.float32)
    images = jnp.asarray(golden_rule.images(meta["eval_seed"], meta["eval_image"]), jnp.float32)
    held = cast(variables(_NAMES, _state(golden), network, images[:1]), jnp.float32)
    apply = jax.jit(lambda x: network.apply(held, x, train=False)[0]["embeddings"][0])
    features, mirrored = (np.asarray(apply(x), np.float64) for x in (images, images[:, :, ::-1]))
    assert worst(features, expected["features"]) < 1e-4
    joined = features + mirrored
    assert worst(joined / np.linalg.norm(joined, axis=1, keepdims=True), expected["embeddings"]) < 1e-4


def _classes(counts: Any, identities: Any, fine: Any) -> FineClasses:
    counts, identities = np.asarray(counts), np.asarray(identities)
    first = np.cumsum(counts) - counts
    columns = fine, first[identities], counts[identities], np.full(len(identities), counts.sum())
    return FineClasses(*(jnp.asarray(np.asarray(column), jnp.int32) for column in columns))


def _outputs(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    """The outputs of a training step are compared with those of the steps themselves."""
    assert {"before", "after"} & set(golden.cases)


def _step(golden: Golden, case: str) -> None:
    meta, expected, train = golden.meta, golden.case(case), golden.case("train")
    step = {**meta, "input": meta["train_image"], "input_seed": meta["train_seed"], "labels": meta["identities"]}
    state = _state(golden)
    fields: dict[str, Any] = {}
    if case == "after":
        classes = _classes(meta["fine_classes_per_identity"], meta["identities"], meta["fine"])
        fields = dict(zip(FIELDS, classes, strict=True))
    donors = expected.get("swap_index")
    # A new optimiser counts from 0, and the recomposition's would wait for the clustering.
    start = {"loss.triplet_start": 0} if case == "after" else {}
    with jax.enable_x64(True), mock.patch.object(fire.FIRe, "donors", return_value=donors):
        config, own = _config(golden, **start), {"attribute_body": {"centres": state[_CENTRES]}}
        optimizer = optimisers.of_recipe(fire.recipe(config), meta[f"{case}_learning_rate"], config.train)
        read, written = steps.reader(_NAMES), steps.writer(_NAMES)
        outputs, values = steps.step(
            *(fire, config, read, golden, step, optimizer, written, state),
            epoch=meta[f"{case}_epoch"] - 1,
            fields=fields,
            own=own,
        )
    assert worst(outputs["features"][0], train["features"]) < 1e-5
    assert worst(outputs["logits"][0], train["logits"]) < 1e-5
    terms = values["terms"]
    compared = {"ce_body": "identity", "total": "total"}
    if case == "after":
        assert worst(outputs["recomposed"][0], expected["recomposed_logits"]) < 1e-5
        compared |= {"triplet_body": "triplet", "attribute_body": "attribute"}
        weighted = terms["recomposition_body"] * meta["far_weight"]
        np.testing.assert_allclose(weighted, expected["recomposition"], rtol=1e-5)
    for name, reference in compared.items():
        np.testing.assert_allclose(terms[name], expected[reference], rtol=1e-5, err_msg=name)
    _compare(values, expected, meta["weight_decay"])


def _compare(values: dict[str, Any], expected: dict[str, np.ndarray], decay: float) -> None:
    """Compares gradients and what the step made of every tensor, under the reference's names of three modules."""
    renamed = dict(values)
    for kind, own in values["own"].items():
        by_name = {
            name if name.startswith("classifier.") else f"model.{name}": tensor for name, tensor in values[kind].items()
        }
        renamed[kind] = by_name | {_CENTRES: own["attribute_body"]["centres"]}
    norms = set(expected["grad_names"].tolist())
    without = [name for name in renamed["gradients"] if name not in norms]
    centres = [_CENTRES] if _CENTRES in without else []  # which the reference does not have yet
    for name in centres:
        np.testing.assert_array_equal(renamed["gradients"][name], 0)
        renamed["after"][name] = renamed["before"][name]
    steps.compare_step(renamed, {**expected, "no_gradient": without}, lambda name: False, decay)


def _schedule(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    rates = schedules.epoch_rates(_config(golden).train, 32, golden.meta["epochs"])
    np.testing.assert_allclose(rates, expected["learning_rates"], rtol=1e-6)


def _attribute(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta["attribute_unit"]
    classes = _classes(meta["fine_classes_per_identity"], meta["identities"], meta["fine"])
    places = sum(meta["fine_classes_per_identity"])
    cosine = np.tanh(0.5 * np.random.default_rng(meta["seed"]).standard_normal((len(meta["fine"]), places)))
    empty = np.pad(cosine, ((0, 0), (0, 3)))  # places that no fine class has
    options = {"scale": meta["scale"], "smoothing": meta["epsilon"]}
    loss = lambda x: attribute_aware(x, classes, jnp.ones(len(x), bool), **options)  # noqa: E731
    for x in (cosine, empty):
        value, gradient = jax.value_and_grad(loss)(jnp.asarray(x))
        np.testing.assert_allclose(value, expected["loss"], rtol=1e-9)
        assert worst(gradient[:, :places], expected["grad"]) < 1e-7  # stored as float32
        assert not np.any(gradient[:, places:])


def _swap(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta, donors = golden.meta["swap_unit"], jnp.asarray(expected["swap_index"])
    x = jnp.asarray(2 * golden_rule.images(meta["seed"], meta["shape"]) + 0.5)
    along = golden_rule.images(meta["seed"] + 1, list(expected["swapped"].shape))
    gradient = jax.grad(lambda x: (recompose(x, donors) * along).sum())(x)
    for value, name in ((recompose(x, donors), "swapped"), (gradient, "grad")):
        assert worst(np.asarray(value).transpose(0, 3, 1, 2), expected[name]) < 1e-7, name


def _cluster(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta["cluster_unit"]
    options = {"k1": meta["k1"], "k2": meta["k2"]}
    features = expected["features"].astype(np.float64)
    identity = expected["identities"]
    found = clusters.cluster_identities(features, identity, **options, eps=meta["eps"])
    np.testing.assert_array_equal(found.label, expected["labels"])
    assert worst(found.centres, expected["centres"]) < 1e-7
    members = expected["identity_to_class"]
    for place, one in enumerate(np.unique(identity)):
        (own,) = np.nonzero(members[place])
        of_one = identity == one
        np.testing.assert_array_equal(found.first[of_one], own[0])
        np.testing.assert_array_equal(found.number[of_one], len(own))
        unit = features[of_one] / np.linalg.norm(features[of_one], axis=1, keepdims=True)
        distances = clusters.jaccard_distances(unit, **options)
        np.testing.assert_allclose(distances, expected[f"jaccard_{place}"], atol=1e-6)
