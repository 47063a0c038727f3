"""ReIDCaps and ReIDCaps+: networks, names of files, weights of parts through training, embedding and search."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import runs
import small_models
from configs import celeb
from deskpro_jax import Embedder, methods
from deskpro_jax.cli import convert, report
from deskpro_jax.data.load import classes as class_orders
from deskpro_jax.data.load import dataset
from deskpro_jax.embedding.embedding_set import settings_of
from deskpro_jax.errors import InputError
from deskpro_jax.methods import reidcaps
from deskpro_jax.models import densenet, initialisers
from deskpro_jax.models.contract import Counts
from deskpro_jax.models.image_parts import IMAGE_PARTS, part_rows, resize_rows
from deskpro_jax.train import initial_weights
from deskpro_jax.weights import published
from deskpro_jax.weights.table import flatten
from deskpro_jax.workdir.networks import load_networks

TINY = "densenet12_x0_25"  # that of debug runs
SIZE = (64, 64)
FIELDS = {"model.backbone": TINY, "model.part_size": SIZE, "data.body_size": (96, 48)}


def configured(variant: str) -> Any:
    config = celeb.get_config(variant)
    config.update_from_flattened_dict(FIELDS)
    return config


def drawn(network: Any, size: tuple[int, int]) -> Any:
    return initialisers.draw(lambda key: network.init(key, jnp.zeros((1, *size, 3)), train=False), 0)


def test_the_published_recipe_is_a_variant() -> None:
    config = celeb.get_config("reidcaps_plus")
    assert (config.model.name, config.model.image_parts, config.data.interpolation) == ("reidcaps", True, "bicubic")
    assert config.data.identities * config.data.images_per_identity == 20
    assert (config.eval.average_precision, config.eval.distance, config.eval.flip) == ("trapezoid", "cosine", False)
    spec = reidcaps.stream(config)
    assert (spec.parts, spec.dim, spec.weights) == (IMAGE_PARTS, 1024, (1, 0.5, 0.5, 1, 0.5, 1))
    assert [term.name for term in reidcaps.recipe(config).losses] == ["margin_body", "ce_body"]
    label = reidcaps.recipe(config).label
    assert label is not None
    assert label(("body_stream", "part_all", "base", "conv0", "kernel")) == "pretrained"
    for path in (("body_stream", "part_all", "base", "attention", "conv", "kernel"), ("body_stream", "classifier_fsr")):
        assert label(path) != "pretrained"


def test_each_of_the_six_networks_sees_its_part() -> None:
    config = configured("reidcaps_plus")
    network = reidcaps.network(config, Counts(3))
    variables = drawn(network, (96, 48))
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 96, 48, 3)), jnp.float32)
    outputs, middle = jax.jit(lambda x: network.apply(variables, x, train=False))(images)
    assert {name: array.shape for name, array in outputs.items()} == {
        "logits": (12, 2, 3),
        "features": (6, 2, 17),
        "embeddings": (6, 2, 17),
    }
    assert middle["lengths"].shape == (6, 2, 3)
    assert middle["boxes"].shape == (2, 6, 4)
    np.testing.assert_allclose(middle["boxes"][1, 3:], [[0, 0, 0.5, 1], [47 / 96, 0, 1, 1], [0, 0, 1, 1]])
    one = reidcaps.ReIDCaps(3, TINY)
    for number, (part, rows) in enumerate(part_rows(96).items()):
        own = {name: tree[f"part_{part}"] for name, tree in variables.items()}
        alone, _ = one.apply(own, resize_rows(images, rows, SIZE), train=False)
        np.testing.assert_allclose(outputs["embeddings"][number], alone["embeddings"][0], atol=1e-5)
        np.testing.assert_allclose(outputs["logits"][2 * number : 2 * number + 2], alone["logits"], atol=1e-5)


def test_dropout_is_before_the_first_classifier_only() -> None:
    network = reidcaps.ReIDCaps(3, TINY, dropout=0.5)
    variables, images = drawn(network, SIZE), jnp.ones((2, *SIZE, 3))
    run = jax.jit(
        lambda key: network.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])[0]
    )
    (one, lengths), (other, again) = (run(jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(one["logits"][0] - other["logits"][0]).max() > 0
    np.testing.assert_array_equal(one["logits"][1], other["logits"][1])
    np.testing.assert_array_equal(one["features"], other["features"])
    np.testing.assert_array_equal(lengths["lengths"], again["lengths"])


def test_csa_refines_the_middle_map() -> None:
    network = reidcaps.network(configured("reidcaps"), Counts(3), attention="paper")
    shapes = jax.eval_shape(
        lambda x: network.apply(drawn(network, SIZE), x, train=False), jnp.zeros((2, 128, 64, 3))[:, :64]
    )
    assert shapes[1]["attention"].shape == (2, 4, 4)


def test_small_images_are_refused_before_anything_is_built() -> None:
    config = configured("reidcaps")
    config.data.body_size = (48, 64)
    with pytest.raises(InputError, match=r"data\.body_size is \(48, 64\); capsules need 64 pixels or more"):
        reidcaps.check(config)
    config = configured("reidcaps_plus")
    config.model.part_size = (64, 32)
    with pytest.raises(InputError, match=r"model\.part_size is \(64, 32\); capsules need"):
        reidcaps.check(config)


def workdir(folder: Path, tiny_data: Path, variant: str) -> Path:
    """Returns the workdir of an untrained network."""
    return small_models.write_workdir(folder, tiny_data, f"{variant},debug", model__backbone=TINY, data__body_size=SIZE)


@pytest.fixture(scope="module")
def untrained_reidcaps(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a ReIDCaps."""
    return workdir(tmp_path_factory.mktemp("reidcaps") / "run", tiny_data, "reidcaps")


# test_method_files.py takes files of both in and out.


def test_files_under_published_names_may_have_imagenets_classifier(untrained_reidcaps: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.safetensors"
    assert convert.main([str(untrained_reidcaps), "--to", str(file)]) == 0
    with safe_open(file, "numpy") as opened:
        assert opened.metadata()["family"] == "reidcaps"
    tensors = load_file(file)
    assert tensors["base.features.denseblock2.denselayer1.conv2.weight"].shape == (8, 32, 3, 3)
    identities, nodes = tensors["digit_capsules.route_weights"].shape[:2]
    assert nodes == 32
    assert tensors["classifer2.classifier.weight"].shape == (identities, 17)
    assert tensors["primary_capsules.capsules.7.bias"].shape == (32,)
    parallel = {f"module.{name}": array for name, array in tensors.items()}
    parallel["module.base.classifier.weight"] = np.zeros((1000, 17), np.float32)
    save_file(parallel, tmp_path / "parallel.safetensors")
    embedder = Embedder(tmp_path / "parallel.safetensors", body_size=SIZE)
    assert embedder.checksum == Embedder(untrained_reidcaps).checksum


def test_parts_are_weighed_where_embeddings_are_compared(tiny_data: Path, tmp_path: Path) -> None:
    embedder = Embedder(workdir(tmp_path / "run", tiny_data, "reidcaps_plus"))
    split = dataset.load("synthetic_tiny", tiny_data, "query")
    rows = embedder.embed(small_models.images(split)[:4])
    parts = rows.reshape(4, len(IMAGE_PARTS), -1)
    np.testing.assert_allclose(np.linalg.norm(parts, axis=2), 1, atol=1e-5)
    weights = np.array(reidcaps.WEIGHTS)
    expected = np.einsum("p,qpd,gpd->qg", weights, parts, parts) / weights.sum()
    np.testing.assert_allclose(embedder.similarity.between(rows, rows), expected, atol=1e-5)
    assert "stream_parts" in settings_of(embedder.similarity)


def test_imagenets_densenet_starts_every_network() -> None:
    names = reidcaps.NAMES[2:]
    assert [one.family for one in names] == ["torchvision_densenet121", "torchvision_densenet121_older"]
    network = reidcaps.network(configured("reidcaps_plus"), Counts(3))
    variables = drawn(network, (96, 48))
    whole = {entry.name for entry in published.entries(reidcaps.NAMES[1], variables)[0]}
    assert {"2_1.base.features.denseblock2.denselayer1.conv2.weight", "all.digit_capsules.route_weights"} <= whole
    for one in names:
        entries, absent = published.entries(one, variables)
        files = {entry.name for entry in entries}
        assert len(entries) == 6 * len(files)
        assert all(name.startswith("features.") for name in files)
        assert {entry.path[1] for entry in absent} == {
            "seblock",
            "primary_capsules",
            "classifier_fsr",
            "classifier_sea",
            "classifier_capsules",
        }
    assert dataclasses.replace(densenet.DENSENETS["densenet121"]).features == 1024


def test_a_workdir_starts_a_training_of_other_people(untrained_reidcaps: Path, tmp_path: Path) -> None:
    loaded = load_networks(untrained_reidcaps)
    config = loaded.config
    config.init.body = str(untrained_reidcaps)
    (spec,) = methods.phases(config)
    module = spec.network(config, runs.CLASSES + 1).module
    initial = initialisers.init_variables(module, 5, {"body": SIZE})
    split: Any = SimpleNamespace(image_id=["a"], identity=np.arange(runs.CLASSES + 1))
    start = initial_weights.begin(spec, module, config, tmp_path / "phase", split)
    assert start is not None
    started, held = start(initial), loaded.variables[0]
    before, own = (dict(flatten(tree["params"])) for tree in (held, initial))
    for path, leaf in flatten(started["params"]):
        classifies = any(name.startswith("classifier") for name in path)
        np.testing.assert_array_equal(leaf, (own if classifies else before)[path], err_msg="/".join(path))


def test_classifiers_of_several_networks_are_put_into_the_order_of_numbers() -> None:
    split: Any = SimpleNamespace(image_id=["2_c1_0", "9_c1_0", "10_c1_0"], identity=np.array([2, 9, 10]))
    head = {"classifier_fsr": {"kernel": np.arange(3.0)[None]}, "base": {"bias": np.arange(3.0)}}
    params: Any = {"part_all": head, "classifier": {"bias": np.arange(3.0)}}
    positions = class_orders.text_positions(split)
    assert positions is not None
    expected = np.arange(3.0)[positions]
    initial_weights.reorder_classes(params, "text", split)
    np.testing.assert_array_equal(params["part_all"]["classifier_fsr"]["kernel"][0], expected)
    np.testing.assert_array_equal(params["classifier"]["bias"], expected)
    np.testing.assert_array_equal(params["part_all"]["base"]["bias"], np.arange(3.0))
    assert expected.tolist() != [0, 1, 2]


@pytest.mark.skipif(
    os.environ.get("DESKPRO_TEST_OPTIMISED") != "1", reason=".ci/run takes it, with DESKPRO_TEST_OPTIMISED=1"
)
@pytest.mark.parametrize("variant", ["reidcaps", "reidcaps_plus"])
def test_it_is_trained_served_and_reported(
    variant: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, plus = tmp_path / "run", variant == "reidcaps_plus"
    runs.run(
        runs.config(tiny_data, f"{variant},debug", train__epochs=1, model__backbone=TINY, data__body_size=SIZE), trained
    )
    assert np.isfinite([values["total"] for values in runs.losses(trained / "reidcaps").values()]).all()
    assert convert.main([str(trained), "--to", str(tmp_path / "served.stablehlo")]) == 0
    described = json.loads((tmp_path / "served.stablehlo.json").read_text())
    assert ("its weight (1, 0.5, 0.5, 1, 0.5, 1)" in described["outputs"][0]["meaning"]) == plus
    assert report.main([str(trained), "--images=0"]) == 0
    page = (trained / "report.html").read_text()
    assert "mAP (trapezoid)" in page
    assert ("No attention maps" in page) != plus  # the parts of the photo are its regions
    if not plus:
        assert convert.main([str(trained), "--to", str(tmp_path / "served.onnx")]) == 0
        capsys.readouterr()
        assert Embedder(trained).embed([np.zeros((*SIZE, 3), np.uint8)]).shape == (1, 17)
        with pytest.raises(InputError, match="images of this size have 128 capsules, the network is made for 32"):
            Embedder(trained, body_size=(128, 128)).embed([np.zeros((*SIZE, 3), np.uint8)])
