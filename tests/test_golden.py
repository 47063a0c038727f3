"""What the published reference implementations compute is what this package computes.

Cases come from tests/golden, or from the folder that DESKPRO_GOLDEN names; every size, seed and hyper-parameter is read
from a case's `meta`.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from deskpro_jax.data.load import augment, pipeline
from deskpro_jax.evaluation import ranking, reranking
from deskpro_jax.methods import deskpro as methods_deskpro
from deskpro_jax.models.contract import Recipe, StepValues
from deskpro_jax.models.streams import Streams
from deskpro_jax.train import optimisers, schedules
from deskpro_jax.train import step as train
from deskpro_jax.weights import deskpro, table
from gallery import parts_of
from golden_networks import FOLDER, deskpro_networks, lightmbn_network, osnet_network
from golden_rule import images, masks

ADAM_EPS_REGION = 1e-7  # where |g| is near Adam's eps the first step is not lr * sign(g) but noise


in_ci = pytest.mark.skipif(
    os.environ.get("DESKPRO_TEST_OPTIMISED") != "1",
    reason="several whole networks take minutes to compile: .ci/run takes them, with DESKPRO_TEST_OPTIMISED=1",
)


@pytest.fixture(autouse=True)
def optimised() -> Iterator[None]:
    """Whole networks at their real size are compiled as users compile them: otherwise they take 17 GB and long."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def cases(kind: str) -> list[Any]:
    """Returns the files in the folder whose `meta` says they hold `kind`, as pytest parameters."""
    found = [path for path in sorted(FOLDER.glob("*.npz")) if json.loads(str(np.load(path)["meta"]))["kind"] == kind]
    skip = pytest.mark.skip(reason=f"{FOLDER} holds no {kind} case")
    return [pytest.param(path, id=path.stem) for path in found] or [pytest.param(None, id="none", marks=skip)]


def first_of(parameters: list[Any]) -> list[Any]:
    """Returns parameters of which only .ci/run takes those after the first."""
    return [
        *parameters[:1],
        *(pytest.param(*one.values, id=one.id, marks=(*one.marks, in_ci)) for one in parameters[1:]),
    ]


def read(path: Path) -> tuple[Any, dict[str, Any]]:
    data = np.load(path)
    return data, json.loads(str(data["meta"]))


def worst(actual: Any, expected: np.ndarray) -> float:
    """Returns the largest difference as a share of the largest expected value."""
    return float(np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max())


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("path", cases("osnet_eval"))
def test_osnet_features_equal_torchreids(path):
    data, meta = read(path)
    x = jnp.asarray(images(meta["input_seed"], meta["input"]), jnp.float32)
    for name in (key for key in data.files if key.startswith("osnet") and "/" not in key):
        model, variables = osnet_network(meta, name)
        outputs, middle = jax.jit(model.apply)(variables, x)
        assert worst(outputs["embeddings"][0], data[name]) < 1e-4, name
        assert worst(middle["feature_map"].mean((1, 2)), data[f"{name}/featuremap_mean"]) < 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("path", cases("lmbn_eval"))
def test_lightmbn_embeddings_equal_the_published_ones(path):
    data, meta = read(path)
    x = jnp.asarray(images(meta["input_seed"], meta["input"]), jnp.float32)
    model, variables = lightmbn_network(meta)
    outputs, _ = jax.jit(functools.partial(model.apply, train=False))(variables, x)
    assert worst(outputs["embeddings"].transpose(1, 0, 2), data["embeddings"]) < 1e-4


def two_stream_embeddings(model: Streams, variables: Any, body: Any, face: Any) -> tuple[np.ndarray, Any]:
    outputs, middle = jax.jit(model.apply)(variables, {"body": body, "face": face})
    parts = np.concatenate([outputs["face"]["embeddings"], outputs["body"]["embeddings"]])
    return parts.transpose(1, 0, 2), middle


@pytest.mark.slow
@pytest.mark.parametrize("path", first_of(cases("deskpro_eval")))
def test_deskpro_embeddings_and_attention_equal_the_released_codes(path):
    data, meta = read(path)
    model, variables, _, _ = deskpro_networks(meta, jnp.float32)
    body = jnp.asarray(images(meta["body_seed"], meta["body"]), jnp.float32)
    face = jnp.asarray(images(meta["face_seed"], meta["face"]), jnp.float32)
    embeddings, middle = two_stream_embeddings(model, variables, body, face)
    assert worst(embeddings, data["embeddings"]) < 1e-4
    assert worst(middle["body"]["attention"][:, None], data["attention"]) < 1e-4


def student_recipe(meta: dict[str, Any]) -> Recipe:
    config = base.get_config()
    with config.unlocked():
        config.loss.update(
            attention_weight=meta["attention_weight"],
            mask_epsilon=meta["mask_epsilon"],
            mask_rule="released",
            alpha=meta["alpha"],
            temperature=meta["temperature"],
            margin=meta["margin"],
            label_smoothing=meta["label_smoothing"],
        )
    return methods_deskpro.recipe(config)


def training_inputs(meta: dict[str, Any], seeds: dict[str, int], labels: np.ndarray, dtype: Any) -> dict[str, Any]:
    batch = len(labels)
    everywhere = jnp.ones(batch, bool)
    return {
        "body": jnp.asarray(images(seeds["body"], meta["body"]), dtype),
        "face": jnp.asarray(images(seeds["lr_face"], meta["face"]), dtype),
        "restored_face": jnp.asarray(images(seeds["hr_face"], meta["face"]), dtype),
        "cloth_mask": jnp.asarray(masks(seeds["mask"], meta["body"]), dtype),
        "identity": jnp.asarray(labels, jnp.int32),
        **dict.fromkeys(("has_face", "has_mask", "valid"), everywhere),
    }


STEP_FIELDS = (
    *("streams", "weights_seed", "num_classes", "temperature", "alpha", "attention_weight", "mask_epsilon"),
    *("margin", "label_smoothing", "learning_rate", "weight_decay", "teacher"),
)


def teacher_statistics(meta: dict[str, Any]) -> str:
    return "batch" if meta["teacher"] == "batch statistics" else "running"


def reference_step(meta: dict[str, Any]):
    """Returns a jitted step (state, inputs) -> (state, terms, gradients, outputs), its model and its first state.

    All in float64. Cases that differ in nothing the step depends on share its compiled form.
    """
    return _reference_step(json.dumps({name: meta[name] for name in STEP_FIELDS}))


@functools.cache
def _reference_step(fields: str):
    meta = json.loads(fields)
    model, variables, teacher, frozen = deskpro_networks(meta, jnp.float64)
    optimizer = optimisers.adam(meta["learning_rate"], meta["weight_decay"])
    recipe = student_recipe(meta)
    statistics = teacher_statistics(meta)

    @jax.jit
    def step(state, frozen, inputs):  # the teacher's variables are arguments: constants are folded for a minute
        known = train.teacher_outputs(teacher, frozen, inputs, statistics)
        outputs, _ = training_outputs(
            model, state.variables, inputs
        )  # the same operations as in the step, compiled once
        return *train.update(state, inputs, model, optimizer, recipe.losses, known), outputs

    return model, lambda state, inputs: step(state, frozen, inputs), train.create_state(variables, optimizer)


def case_labels(meta: dict[str, Any], step: int = 0) -> np.ndarray:
    identities = (np.arange(meta["identities"]) + step) % meta["num_classes"]
    return np.repeat(identities, meta["images_per_identity"])


def train_seeds(meta: dict[str, Any]) -> dict[str, int]:
    return {name: meta[f"{name}_seed"] for name in ("body", "lr_face", "mask", "hr_face")}


def training_outputs(model: Streams, variables: Any, inputs: dict[str, Any]) -> Any:
    return model.apply(variables, inputs, train=True, mutable=["batch_stats"])[0]


@pytest.mark.slow
@in_ci
@pytest.mark.parametrize("path", cases("deskpro_train"))
def test_training_step_in_float64_agrees_term_by_term(path, x64):
    data, meta = read(path)
    _, step, state = reference_step(meta)
    before = table.dump(deskpro.two_streams(streams=meta["streams"], attention_form="released"), state.variables)
    inputs = training_inputs(meta, train_seeds(meta), case_labels(meta), jnp.float64)
    after, terms, grads, outputs = step(state, inputs)
    for name in ("ce_face", "ce_body", "triplet_face", "triplet_body", "kd", "attention", "total"):
        np.testing.assert_allclose(terms[name], data[name], rtol=1e-5, err_msg=name)
    logits = np.concatenate([outputs["face"]["logits"], outputs["body"]["logits"]])
    assert worst(logits, data["logits"]) < 1e-5
    features = np.concatenate([outputs[stream]["features"][:3] for stream in ("face", "body")])
    assert worst(features, data["features"]) < 1e-5

    entries = deskpro.two_streams(streams=meta["streams"], attention_form="released")
    tensors = table.dump([entry for entry in entries if entry.collection == "params"], {"params": grads})
    norms = dict(zip(data["grad_names"], data["grad_norms"], strict=True))
    necks = {name for name in tensors if name.endswith("bn.bias") and ".reduction_" in name}
    assert set(norms) == set(tensors) - necks
    for name, expected in norms.items():
        np.testing.assert_allclose(np.linalg.norm(tensors[name]), expected, rtol=1e-5, atol=1e-9, err_msg=name)

    values = table.dump(entries, after.variables)
    for key in (key for key in data.files if key.startswith("after/")):
        name = key.removeprefix("after/")
        expected, found = data[key], values[name].reshape(-1)[: data[key].size]
        old = before[name].reshape(-1)[: expected.size]
        if name in tensors:  # a parameter: compare the step itself, where the gradient is no noise
            clear = np.abs(tensors[name].reshape(-1)[: expected.size] + meta["weight_decay"] * old) > ADAM_EPS_REGION
            assert clear.mean() > 0.5, name
            np.testing.assert_allclose((found - old)[clear], (expected - old)[clear], rtol=1e-3, err_msg=name)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("path", first_of(cases("deskpro_train")))
def test_training_losses_in_float32_agree(path):
    data, meta = read(path)
    model, variables, teacher, frozen = deskpro_networks(meta, jnp.float32)
    recipe, statistics = student_recipe(meta), teacher_statistics(meta)

    @jax.jit
    def losses(variables, frozen, inputs):  # the gradients are compared in float64
        known = train.teacher_outputs(teacher, frozen, inputs, statistics)
        values = StepValues(*training_outputs(model, variables, inputs), inputs, known, 0)
        total, terms = train.loss_terms(values, recipe.losses)
        return {**terms, "total": total}

    terms = losses(variables, frozen, training_inputs(meta, train_seeds(meta), case_labels(meta), jnp.float32))
    for name in ("ce_face", "ce_body", "triplet_face", "triplet_body", "kd", "attention", "total"):
        np.testing.assert_allclose(terms[name], data[name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
@in_ci
@pytest.mark.parametrize("path", cases("deskpro_run"))
def test_a_run_of_steps_stays_on_the_references_course(path, x64):
    data, meta = read(path)
    model, step, state = reference_step(meta)
    for index in range(meta["steps"]):
        first = meta["weights_seed"] + 1000 * (index + 1)
        seeds = {"body": first + 1, "lr_face": first + 2, "mask": first + 3, "hr_face": first + 4}
        state, terms, *_ = step(state, training_inputs(meta, seeds, case_labels(meta, index), jnp.float64))
        reid = terms["total"] - meta["attention_weight"] * terms["attention"] - meta["alpha"] * terms["kd"]
        for name, value in {**terms, "reid": reid}.items():
            if name in data.files:
                np.testing.assert_allclose(value, data[name][index], rtol=1e-4, err_msg=f"{name}, step {index}")
    seed, shape = meta["weights_seed"], {"body": [2, *meta["body"][1:]], "face": [2, *meta["face"][1:]]}
    body, face = images(seed + 1, shape["body"]), images(seed + 2, shape["face"])
    embeddings, _ = two_stream_embeddings(model, state.variables, body, face)
    assert worst(embeddings, data["embeddings"]) < 1e-3


@pytest.mark.parametrize("path", cases("schedule"))
def test_learning_rate_of_every_epoch_agrees(path):
    data, meta = read(path)
    base_rate = schedules.base_learning_rate(0.0006, meta["batch"])
    rates = schedules.learning_rates(base_rate, meta["epochs"], meta["warmup_epochs"], meta["final_fraction"])
    np.testing.assert_allclose(base_rate, data["base_lr"], rtol=1e-6)
    np.testing.assert_allclose(rates, data["lr_per_epoch"], rtol=1e-6)


@pytest.mark.parametrize("path", cases("preprocess"))
def test_preprocessing_agrees_pixel_by_pixel(path):
    data, meta = read(path)
    stride = meta["subsample"]
    for name in (key for key in data.files if f"{key}_out" in data.files):
        resized = pipeline.resize(data[name], tuple(meta["size"]))
        values = np.asarray(augment.normalise(resized[None]))[0, ::stride, ::stride]
        np.testing.assert_allclose(values, data[f"{name}_out"], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("path", cases("retrieval"))
def test_every_retrieval_figure_agrees(path):
    data, meta = read(path)
    fields = ("ids", "cameras", "clothes")
    query = ranking.Labels(*(data[f"query_{field}"] for field in fields))
    gallery = ranking.Labels(*(data[f"gallery_{field}"] for field in fields))
    features = data["query_features"], data["gallery_features"]
    distances = 1.0 - features[0] @ features[1].T
    for name, rule in (("market", "general"), ("general", "general"), ("cc", "cc"), ("sc", "sc")):
        if f"{name}_map" not in data.files:
            continue
        scores = ranking.score_from_distances(distances, query, gallery, rule, max_rank=meta["max_rank"])
        np.testing.assert_allclose(scores.map, data[f"{name}_map"], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(scores.cmc, data[f"{name}_cmc"], atol=1e-6, err_msg=name)
    if "reranked_map" in data.files:
        blocks = reranking.rerank(
            *features,
            similarity=parts_of(features[0], 1),
            k1=meta["k1"],
            k2=meta["k2"],
            original_weight=meta["rerank_lambda"],
        )
        reranked = np.concatenate(list(blocks))
        kept = data["reranked_distance"]
        np.testing.assert_allclose(reranked[: len(kept)], kept, atol=1e-6)
        scores = ranking.score_from_distances(reranked, query, gallery, "general", max_rank=meta["max_rank"])
        np.testing.assert_allclose(scores.map, data["reranked_map"], atol=1e-6)
        np.testing.assert_allclose(scores.cmc, data["reranked_cmc"], atol=1e-6)
