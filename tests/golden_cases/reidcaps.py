"""ReIDCaps: whole network, training step, routing, parts, weighted distances and its own retrieval figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import golden_rule
from deskpro_jax.evaluation.matching_rules import CAMERA_READINGS, Labels
from deskpro_jax.evaluation.ranking import score, score_from_distances
from deskpro_jax.evaluation.similarity import Similarity, StreamParts
from deskpro_jax.methods import reidcaps
from deskpro_jax.models import capsules
from deskpro_jax.models.contract import Counts
from deskpro_jax.models.image_parts import IMAGE_PARTS, part_rows
from deskpro_jax.train import optimisers
from golden_cases import Golden, cast, steps, tensors, variables, worst

_STEP = ("train", "loss", "grad_names", "grad_norms", "after")  # one training step under several names
HEAVY = _STEP
_NAMES = reidcaps.NAMES[0]


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    if case in _STEP:
        if case == next(name for name in _STEP if name in golden.cases):
            _train(golden)
        return
    {
        "eval": _eval,
        "routing": _routing,
        "squash": _squash,
        "partition": _partition,
        "combined": _combined,
        "retrieval": _retrieval,
        "ap_ties": _ties,
    }[case](golden, golden.case(case))


def _config(meta: dict[str, Any]) -> Any:
    present, absent = meta["margin_constants"]["upper"], meta["margin_constants"]["lower"]
    fields = reidcaps.VARIANTS["reidcaps"] | {
        "data.body_size": tuple(meta["input"][2:]),
        "model.dropout": meta["dropout"],
        "model.routing": meta["num_iteration"],
        "loss.capsule_margins": (present, absent),
        "loss.capsule_absent": meta["margin_constants"]["negative_weight"],
        "train.base_lr": meta["optimizer"]["learning_rate"],
        "train.weight_decay": meta["optimizer"]["weight_decay"],
        "train.pretrained_rate": meta["optimizer"]["base_multiplier"],
    }
    return steps.configured("reidcaps", fields)


def _state(golden: Golden) -> dict[str, np.ndarray]:
    return tensors(golden.manifest, golden.meta["weights_seed"], golden.meta["gain"])


def _eval(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta
    network = reidcaps.network(_config(meta), Counts(meta["num_classes"]))
    images = jnp.asarray(golden_rule.images(meta["eval_seed"], meta["input"]), jnp.float32)
    held = cast(variables(_NAMES, _state(golden), network, images[:1]), jnp.float32)
    outputs, middle = jax.device_get(jax.jit(lambda held, x: network.apply(held, x, train=False))(held, images))
    pooled = outputs["embeddings"][0]
    own = {
        "pool": pooled,
        "embedding": pooled / np.linalg.norm(pooled, axis=1, keepdims=True),
        "feature_map": middle["feature_map"].transpose(0, 3, 1, 2)[:, ::24],
        "logits_fsr": outputs["logits"][0],
        "logits_sea": outputs["logits"][1],
        "classes": jax.nn.softmax(middle["lengths"][0]),
    }
    for name, array in expected.items():
        assert worst(own[name], array) < 1e-4, name


def _train(golden: Golden) -> None:
    meta, expected, terms = golden.meta, golden.case("train"), golden.case("loss")
    config, size = _config(meta), tuple(meta["input"][2:])
    step = {**meta, "input_seed": meta["train_seed"]}
    with jax.enable_x64(True):
        optimizer = optimisers.of_recipe(reidcaps.recipe(config), config.train.base_lr, config.train)
        read = steps.reader(_NAMES, size)
        outputs, values = steps.step(
            reidcaps, config, read, golden, step, optimizer, steps.writer(_NAMES), state=_state(golden)
        )
    if terms:
        np.testing.assert_allclose(values["terms"]["margin_body"], terms["margin"], rtol=1e-5)
        np.testing.assert_allclose(values["terms"]["ce_body"], terms["ce_fsr"] + terms["ce_sea"], rtol=1e-5)
        np.testing.assert_allclose(values["terms"]["total"], terms["total"], rtol=1e-5)
    own = {"logits_fsr": outputs["logits"][0], "logits_sea": outputs["logits"][1], "pool": outputs["features"][0]}
    for name in own.keys() & expected.keys():
        assert worst(own[name], expected[name]) < 1e-5, name
    compared = {**golden.arrays, "no_gradient": meta["no_gradient"]}
    steps.compare_step(values, compared, _NAMES.ignores, meta["optimizer"]["weight_decay"])


def _routing(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta["routing"]
    random = np.random.default_rng(meta["seed"])
    batch, nodes, identities = meta["batch"], meta["nodes"], meta["capsules"]
    x = 0.5 * random.standard_normal([batch, nodes, meta["in_dim"]])
    weights = random.standard_normal([identities, nodes, meta["in_dim"], meta["out_dim"]])
    target = random.standard_normal([batch, identities, meta["out_dim"]])

    def loss(x: Any, weights: Any, iterations: int) -> Any:
        votes = jnp.einsum("bid,nido->bion", x, weights)
        routed = capsules.route(votes, iterations).transpose(0, 2, 1)
        return (routed * target).sum(), routed

    with jax.enable_x64(True):
        arrays = jnp.asarray(x), jnp.asarray(weights)
        for iterations in meta["iterations"]:
            (_, routed), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(*arrays, iterations)
            assert worst(routed, expected[f"{iterations}/output"]) < 1e-9
            assert worst(gradients[0], expected[f"{iterations}/grad_input"]) < 1e-9
            norm = float(jnp.linalg.norm(gradients[1]))
            np.testing.assert_allclose(norm, expected[f"{iterations}/grad_weights_norm"], rtol=1e-9)


def _squash(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    with jax.enable_x64(True):
        assert worst(capsules.squash(jnp.asarray(expected["input"])), expected["output"]) < 1e-9


def _partition(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    for height, rows in zip(expected["heights"].tolist(), expected["rows"].tolist(), strict=True):
        own = part_rows(height)
        assert [list(own[name]) for name in IMAGE_PARTS[: len(rows)]] == rows, height


def _combined(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta["combined"]
    assert tuple(meta["order"]) == IMAGE_PARTS
    weights = tuple(meta["weights"])
    parts, _, dim = expected["query"].shape
    query, gallery = (expected[name].transpose(1, 0, 2).reshape(-1, parts * dim) for name in ("query", "gallery"))
    similarity = Similarity((StreamParts("body", parts, dim, weights=weights),))
    for one in (similarity, dataclasses.replace(similarity, distance="euclidean")):
        distances = one.distances(one.unit_parts(query), one.unit_parts(gallery))
        assert worst(distances * sum(weights), expected["total"]) < 1e-9


def _retrieval(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    unknown = [np.full(len(expected[f"{split}_ids"]), -1) for split in ("query", "gallery")]
    features = expected["query_features"], expected["gallery_features"]
    similarity = Similarity((StreamParts("body", 1, features[0].shape[1]),))
    numbers = [
        np.array([int(name.split("_")[1]) for name in expected[f"{split}_names"]]) for split in ("query", "gallery")
    ]
    for reading, camera in (("digit", "first_digit"), ("number", "number")):
        case = {name.removeprefix(f"{reading}/"): array for name, array in expected.items() if name.startswith(reading)}
        if not case:
            continue
        labels = [
            Labels(expected[f"{split}_ids"], CAMERA_READINGS[camera](number), none)
            for split, number, none in zip(("query", "gallery"), numbers, unknown, strict=True)
        ]
        for integration, name in (("trapezoid", "trapezoid"), ("step", "mean_precision")):
            more: dict[str, Any] = {"max_rank": len(case["cmc"]), "integration": integration}
            by_features = [
                score(*features, *labels, similarity=dataclasses.replace(similarity, distance=distance), **more)
                for distance in ("cosine", "euclidean")
            ]
            for scores in (*by_features, score_from_distances(expected["distances"], *labels, **more)):
                np.testing.assert_allclose(scores.map, case[f"map_{name}"], rtol=1e-12)
                np.testing.assert_allclose(scores.average_precision, case[f"ap_{name}"], rtol=1e-12)
                np.testing.assert_allclose(scores.cmc, case["cmc"], rtol=1e-12)
                assert scores.counted == case["valid_queries"]


def _ties(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    for relevant, scores, area in zip(*(expected[name] for name in ("relevant", "scores", "trapezoid")), strict=True):
        query = Labels(*(np.array([value]) for value in (1, 0, -1)))
        gallery = Labels(relevant, np.ones_like(relevant), np.full_like(relevant, -1))
        own = score_from_distances(-scores[None], query, gallery, integration="trapezoid")
        np.testing.assert_allclose(own.map, area, rtol=1e-12)
