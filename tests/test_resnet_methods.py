"""Methods that stand on a ResNet: their networks at a tiny size, their names in files, their starts from ImageNet."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from jax import export

import small_models
from configs import celeb, synthetic
from deskpro_jax import methods
from deskpro_jax.cli import convert
from deskpro_jax.errors import InputError
from deskpro_jax.methods import aim, bot, cal, cssc, lmbn, lmbn_r, mgn, pcb
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import PRETRAINED, Counts
from deskpro_jax.models.stripes import equal_stripes, stripes
from deskpro_jax.weights import published
from deskpro_jax.workdir.networks import load_networks
from small_backbones import TINY, TINY_RESNET

GOLDEN = Path(__file__).parent / "golden" / "methods"
ON_RESNET = {"bot": bot, "pcb": pcb, "mgn": mgn, "lmbn_r": lmbn_r, "cssc": cssc, "cal": cal, "aim": aim}
SIZE = {"aim": (128, 32), "mgn": (96, 32)}
# Method, variant in its manifest, its names, parts.
PUBLISHED = [
    ("bot", "lightmbn", bot.NAMES[0], 1),
    ("bot", "strong_baseline", bot.NAMES[1], 1),
    ("pcb", "pcb_p6", pcb.NAMES[0], 6),
    ("pcb", "pcb_p4", pcb.NAMES[0], 4),
    ("mgn", "feats256", mgn.NAMES[0], 8),
    ("mgn", "feats512", mgn.NAMES[0], 8),
    ("lmbn_r", "published", lmbn_r.NAMES[0], 7),
]


def configuration(name: str, **fields: Any) -> Any:
    config = celeb.get_config(name)
    own = {"model.backbone": TINY if name == "lmbn" else TINY_RESNET, "data.body_size": SIZE.get(name, (64, 32))}
    config.update_from_flattened_dict({**own, **{key.replace("__", "."): value for key, value in fields.items()}})
    methods.check(config)
    return config


def network(name: str, **fields: Any) -> tuple[Any, Any, Any]:
    """Returns a small network for five identities, its variables and images of its size."""
    config = configuration(name, model__feature_dim=16, model__dropout=0.0, **fields)
    module = methods.find_method(name).network(config, Counts(5))
    images = jnp.asarray(np.random.default_rng(1).standard_normal((3, *config.data.body_size, 3)), jnp.float32)
    return module, initialisers.draw(lambda key: module.init(key, images[:1], train=False), 0), images


@pytest.mark.parametrize("name", [*ON_RESNET, "lmbn"])
def test_outputs_are_those_of_the_stream_and_padding_changes_nothing(name: str) -> None:
    module, variables, images = network(name)
    spec = methods.find_method(name).stream(configuration(name, model__feature_dim=16))
    valid = jnp.array([True, True, False])

    @jax.jit
    def run(images: Any, valid: Any) -> Any:
        return module.apply(variables, images, train=True, valid=valid, mutable="batch_stats")

    (outputs, _), moved = run(images.at[2].set(50.0), valid)
    stages = len(cssc.STAGES) if name == "cssc" else len(spec.parts)
    assert outputs["logits"].shape == (stages, 3, 5)
    assert outputs["embeddings"].shape == (len(spec.parts), 3, spec.dim)
    assert len(outputs["features"]) > max(spec.triplet)
    (other, _), again = run(images, valid)
    for key, value in outputs.items():
        np.testing.assert_allclose(value[:, :2], other[key][:, :2], atol=1e-4, err_msg=key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), moved, again)


@pytest.mark.parametrize("name", ON_RESNET)
def test_programs_for_any_number_of_images_are_exported(name: str) -> None:
    module, variables, images = network(name)
    (batch,) = export.symbolic_shape("batch")
    any_number = jax.ShapeDtypeStruct((batch, *images.shape[1:]), jnp.float32)
    program = export.export(jax.jit(lambda x: module.apply(variables, x, train=False)[0]["embeddings"]))(any_number)
    assert program.out_avals[0].shape[1] == batch


@pytest.mark.parametrize("name", ON_RESNET)
def test_csa_refines_the_middle_map(name: str) -> None:
    config = configuration(name)
    module = ON_RESNET[name].network(config, Counts(5), attention="paper")
    images = jnp.zeros((2, *config.data.body_size, 3))
    _, middle = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, train=False), images)[0]
    height, width = config.data.body_size
    assert middle["attention"].shape == (2, height // 16, width // 16)
    assert middle["refined"].shape == middle["trunk"].shape


def manifest(name: str, variant: str) -> dict[str, tuple[int, ...]]:
    shapes = json.loads((GOLDEN / f"{name}_manifest.json").read_text())[variant]
    return {key: tuple(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(("name", "variant", "names", "parts"), PUBLISHED)
def test_a_published_file_is_recognised_and_shows_what_the_network_is(
    name: str, variant: str, names: Any, parts: int
) -> None:
    shapes = manifest(name, variant)
    tensors = {f"module.{key}": np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    file = published.recognise(tensors, methods.published_names())
    assert file is not None
    assert (file.method, file.names) == (name, names)
    config = celeb.get_config(names.variant or name)
    config.update_from_flattened_dict(file.fields)
    assert config.model.backbone == "resnet50"
    module = ON_RESNET[name].network(config, Counts(11))
    assert len(ON_RESNET[name].stream(config).parts) == parts
    images = jnp.zeros((1, *config.data.body_size, 3))
    variables = meta.unbox(jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images))
    entries, absent = published.entries(names, variables)
    assert not absent
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    assert {entry.name for entry in entries} == {key for key in shapes if not names.ignores(key)} - counters


@pytest.mark.parametrize("name", ON_RESNET)
def test_imagenet_starts_the_backbone_and_every_branch(name: str) -> None:
    _, variables, _ = network(name, model__backbone="resnet14_x0_25")
    names = ON_RESNET[name].NAMES[-1]
    entries, absent = published.entries(names, variables)
    shapes = {e.name: published.table.torch_shape(leaf(variables, e).shape, e.kind) for e in entries}
    rng = np.random.default_rng(2)
    imagenet = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    imagenet |= {"fc.weight": np.zeros((1000, 512), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    file = published.recognise(imagenet, methods.published_names())
    assert file is not None
    assert file.names.start
    filled = published.fill(file._replace(names=names), variables).variables
    for entry in entries:
        np.testing.assert_array_equal(published.table.to_torch(leaf(filled, entry), entry.kind), imagenet[entry.name])
    for entry in absent:
        np.testing.assert_array_equal(leaf(filled, entry), leaf(variables, entry))
    label = ON_RESNET[name].recipe(configuration(name)).label
    trained = [entry for entry in (*entries, *absent) if entry.collection == "params"]
    by_label = {entry.path: label(("body_stream", *entry.path)) for entry in trained}
    assert {path for path, own in by_label.items() if own == PRETRAINED} == {
        entry.path for entry in entries if entry.collection == "params"
    }


def leaf(variables: Any, entry: Any) -> Any:
    value = variables[entry.collection]
    for part in entry.path:
        value = value[part]
    return value


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mgn", {"data.body_size": (256, 128)}, "data.body_size is 256x128; 'mgn' cuts maps into halves and thirds"),
        ("mgn", {"model.pool": "mean"}, "model.pool is 'mean'; expected one of max, avg"),
        ("pcb", {"model.parts": 0}, "model.parts is 0; it must be an integer >= 1"),
        ("bot", {"model.backbone": "x1_0"}, "model.backbone is 'x1_0'; expected one of resnet50"),
        ("lmbn", {"model.backbone": "resnet50"}, "model.backbone is 'resnet50'; expected one of x1_0"),
        ("lmbn_r", {"model.face": "student"}, "model.name is 'lmbn_r', which has a body stream only"),
    ],
)
def test_what_does_not_fit_is_refused_by_field(name: str, fields: dict[str, Any], message: str) -> None:
    config = synthetic.get_config(name)
    config.update_from_flattened_dict(fields)
    with pytest.raises(InputError, match=re.escape(message)):
        methods.check(config)


def test_stripes_overlap_where_the_height_is_no_multiple() -> None:
    rows = jnp.arange(8.0).reshape(1, 8, 1, 1)
    spans = [(int(part.min()), int(part.max())) for part in stripes(rows, 6)]
    assert spans == [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)]
    assert [part.shape[1] for part in stripes(rows, 4)] == [2, 2, 2, 2]


def test_equal_stripes_leave_out_the_rows_that_are_over() -> None:
    rows = jnp.arange(9.0).reshape(1, 9, 1, 1)
    assert [part.ravel().tolist() for part in equal_stripes(rows, 4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [part.ravel().tolist() for part in equal_stripes(rows[:, :2], 4)] == [[0], [1], [1], [1]]


def test_a_metric_loss_may_begin_after_some_epochs() -> None:
    (phase,) = methods.phases(celeb.get_config("cssc"))
    (weight,) = (term.weight for term in phase.recipe.losses if term.name == "triplet_body")
    assert [float(weight(jnp.asarray(epoch))) for epoch in (0, 34, 35, 119)] == [0, 0, 1, 1]


def test_variants_are_trained_with_the_published_losses() -> None:
    terms = {
        name: {term.name: term.weight for term in methods.phases(celeb.get_config(name))[0].recipe.losses}
        for name in ("bot", "bot_authors", "pcb", "mgn", "lmbn", "lmbn_r")
    }
    assert terms["bot"] == {"triplet_body": 1.0, "ce_body": 1.0}
    assert terms["bot_authors"] == {"triplet_body": 1.0, "ce_body": 1.0, "centre_body": 5e-4}
    assert terms["pcb"] == {"ce_body": 1.0}
    assert terms["mgn"] == {"triplet_body": 0.5, "ce_body": 0.5}
    assert terms["lmbn"] == terms["lmbn_r"] == {"multi_similarity_body": 0.5, "ce_body": 0.5}
    assert lmbn.VARIANTS["lmbn"]["model.backbone"] == "x1_0"


@pytest.mark.parametrize("name", ["bot", "bot_authors", "pcb", "pcb_torchreid", "mgn", "lmbn", "lmbn_r"])
def test_parts_are_compared_at_unit_length(name: str) -> None:
    # Squared Euclidean distance of unit vectors, as torchreid and BoT's authors have it, ranks as the cosine does.
    assert celeb.get_config(name).eval.distance == "cosine"


@pytest.mark.parametrize("name", ["mgn", "lmbn"])
def test_a_workdir_goes_into_a_file_of_published_names_and_comes_back(
    name: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = "x0_25" if name == "lmbn" else "resnet14_x0_25"
    fields = {"model__backbone": backbone, "model__pool": "max", "eval__flip": False}
    folder = small_models.write_workdir(tmp_path / "run", tiny_data, f"{name},debug", **fields)
    file = tmp_path / "out.safetensors"
    assert convert.main([str(folder), "--to", str(file)]) == 0
    assert f"{name} of step 7" in capsys.readouterr().out
    opened = load_networks(file)
    (own,), (trained,) = opened.phases, load_networks(folder).phases
    jax.tree.map(np.testing.assert_array_equal, own.stream_variables("body"), trained.stream_variables("body"))
    if name == "mgn":  # no tensor shows it
        assert own.network.module.body_stream.pool == "max"
