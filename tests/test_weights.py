"""Every tensor of a PyTorch state dict has one place in the model and comes back from it unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from deskpro_jax.errors import InputError
from deskpro_jax.methods.deskpro import module as deskpro_module
from deskpro_jax.models import initialisers
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.models.lmbn import LightMBN
from deskpro_jax.models.osnet import OSNet, backbone
from deskpro_jax.weights import deskpro, lmbn, osnet, table
from golden_rule import ALIASES, state_dict

GOLDEN = Path(__file__).parent / "golden"
IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def manifest(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}_manifest.json").read_text())


def counted(names: Any) -> set[str]:
    """Names that hold weights or statistics, each once: no batch counters, no second registrations."""
    second = tuple(ALIASES)
    return {n for n in names if not n.endswith("num_batches_tracked") and not any(alias in n for alias in second)}


def randomised(variables: Any) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), variables)


def assert_equal(found: Any, expected: Any) -> None:
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", ["x0_25", "ibn_x1_0"])
def test_a_published_osnet_comes_back_exactly(name: str) -> None:
    published = manifest("osnet")[f"osnet_{name}"]
    tensors = {key: value for key, value in state_dict(published, 3).items() if key in counted(published)}
    model = OSNet(name, published["classifier.weight"][0])
    template = meta.unbox(jax.eval_shape(lambda x: model.init(jax.random.key(0), x), IMAGE))
    entries = osnet.osnet(spec=backbone(name.removeprefix("osnet_")))
    variables = table.load(entries, tensors, template)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, template)
    assert_equal(table.dump(entries, variables), tensors)


@pytest.mark.parametrize("naming", [lmbn.PUBLISHED, lmbn.DESKPRO], ids=["published", "deskpro"])
def test_a_lightmbn_comes_back_exactly_under_either_naming(naming: lmbn.Naming) -> None:
    model = LightMBN(5, "x0_25", feature_dim=16)
    variables = randomised(initialisers.draw(lambda key: model.init(key, jnp.zeros(IMAGE.shape), train=False), 0))
    entries = list(lmbn.light_mbn(naming, streams="abcd"))
    tensors = table.dump(entries, variables)
    assert_equal(table.load(entries, tensors, variables), variables)
    assert_equal(table.dump(entries, table.load(entries, tensors, variables)), tensors)


def test_the_table_of_lightmbn_names_every_published_tensor_once() -> None:
    names = [entry.name for entry in lmbn.light_mbn(lmbn.PUBLISHED, streams="abcd")]
    assert len(names) == len(set(names))
    assert set(names) == counted(manifest("lmbn"))


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("streams", ["abcd", "aacd"])
def test_both_streams_of_deskpro_come_back_exactly(streams: str, form: str) -> None:
    model = deskpro_module(5, backbone="x0_25", feature_dim=16, os_streams=streams, attention=form)
    variables = randomised(init_variables(model, 0))
    entries = deskpro.two_streams(streams=streams, attention_form=form)
    tensors = table.dump(entries, variables)
    assert len(tensors) == len(entries)
    assert_equal(table.load(entries, tensors, variables), variables)
    assert_equal(table.dump(entries, table.load(entries, tensors, variables)), tensors)


@pytest.mark.parametrize("streams", ["abcd", "aacd"])
def test_the_tables_of_deskpro_name_every_released_tensor_once_but_the_streams_that_do_not_run(streams: str) -> None:
    entries = deskpro.two_streams(streams=streams, attention_form="released")
    entries += deskpro.stream("teacher", streams=streams)
    names = [entry.name for entry in entries]
    idle = "conv2b" if streams == "aacd" else "no stream is idle"
    assert len(names) == len(set(names))
    assert set(names) == {name for name in counted(manifest("deskpro")) if idle not in name}


def test_each_kind_of_tensor_moves_its_axes_to_where_flax_has_them() -> None:
    rng = np.random.default_rng(0)
    conv, pointwise = rng.random((4, 3, 7, 5)), rng.random((4, 3, 1, 1))
    depthwise, linear = rng.random((4, 1, 3, 3)), rng.random((4, 3))
    assert table.to_flax(conv, "conv")[6, 2, 1, 3] == conv[3, 1, 6, 2]
    assert table.to_flax(pointwise, "pointwise")[1, 3] == pointwise[3, 1, 0, 0]
    assert table.to_flax(depthwise, "depthwise")[2, 0, 3] == depthwise[3, 0, 2, 0]
    assert table.to_flax(linear, "linear")[1, 3] == linear[3, 1]
    for kind, tensor in (("conv", conv), ("pointwise", pointwise), ("depthwise", depthwise), ("linear", linear)):
        np.testing.assert_array_equal(table.to_torch(table.to_flax(tensor, kind), kind), tensor)


def test_light_convolutions_go_to_the_slot_of_their_stream_in_the_stage_of_their_depth() -> None:
    places = {entry.name: (entry.path, entry.index) for entry in osnet.os_block("b", ("block",), (1,), streams="abcd")}
    kernel = ("depthwise", "kernel")
    assert places["b.conv2a.conv2.weight"] == (("block", "stage0", *kernel), (1, 0))
    assert places["b.conv2c.1.conv2.weight"] == (("block", "stage1", *kernel), (1, 1))
    assert places["b.conv2d.3.conv2.weight"] == (("block", "stage3", *kernel), (1, 0))
    released = {entry.name: entry.index for entry in osnet.os_block("b", ("block",), streams="aacd")}
    assert released["b.conv2c.0.conv2.weight"] == (1,)
    assert released["b.conv2d.1.conv2.weight"] == (1,)


TEMPLATE = {"params": {"conv": {"kernel": np.zeros((2, 3, 4))}, "head": {"kernel": np.zeros((4, 5))}}}
ENTRIES = [
    table.Entry("a.weight", "params", ("conv", "kernel"), (0,), "pointwise"),
    table.Entry("b.weight", "params", ("conv", "kernel"), (1,), "pointwise"),
    table.Entry("head.weight", "params", ("head", "kernel"), (), "linear"),
]


def fitting() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.random((4, 3, 1, 1)),
        "b.weight": rng.random((4, 3, 1, 1)),
        "head.weight": rng.random((5, 4)),
    }


def refusal(entries: list[table.Entry], tensors: dict[str, np.ndarray]) -> str:
    with pytest.raises(InputError) as caught:
        table.load(entries, tensors, TEMPLATE)
    return str(caught.value)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((4, 2, 1, 1), id="other_channels"),
        pytest.param((3, 4, 1, 1), id="channels_swapped"),
        pytest.param((4, 3), id="axes_missing"),
        pytest.param((4, 3, 3, 3), id="larger_kernel"),
    ],
)
def test_a_tensor_of_another_shape_is_an_error_with_its_name_and_both_shapes(shape: tuple[int, ...]) -> None:
    message = refusal(ENTRIES, {**fitting(), "b.weight": np.zeros(shape)})
    assert f"b.weight: shape {shape}, the model has (4, 3, 1, 1) at params/conv/kernel" in message
    assert "(1 tensors)" in message


def test_a_depthwise_kernel_with_more_than_one_input_is_refused() -> None:
    template = {"params": {"kernel": np.zeros((3, 3, 4))}}
    entries = [table.Entry("d.weight", "params", ("kernel",), (), "depthwise")]
    with pytest.raises(InputError, match=r"d\.weight: shape \(4, 2, 3, 3\), the model has \(4, 1, 3, 3\)"):
        table.load(entries, {"d.weight": np.zeros((4, 2, 3, 3))}, template)


def test_every_problem_is_listed_not_only_the_first() -> None:
    message = refusal(ENTRIES, {"a.weight": np.zeros((1, 1, 1, 1)), "head.weight": np.zeros((4, 4))})
    assert "(3 tensors)" in message
    assert "a.weight: shape (1, 1, 1, 1)" in message
    assert "b.weight: not in the file" in message
    assert "head.weight: shape (4, 4), the model has (5, 4)" in message


def test_of_many_problems_three_of_each_kind_are_shown_with_their_numbers() -> None:
    entries = [table.Entry(f"layer{i}", "params", ("head", "kernel")) for i in range(25)]
    wide = {f"layer{i}": np.zeros((9, 9)) for i in range(20, 25)}
    message = refusal(entries, wide)
    assert "(25 tensors):\n  20 not in the file:\n    layer0: not in the file" in message
    assert "... and 17 more\n  5 of another shape:\n    layer20: shape (9, 9)" in message
    assert message.endswith("... and 2 more")
    assert sum(f"layer{i}:" in message for i in range(25)) == 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_tensor_that_is_not_finite_is_refused_by_name(value: float) -> None:
    tensors = fitting()
    tensors["b.weight"].flat[-1] = value
    tensors["b.weight"] = table.as_float32(tensors["b.weight"])
    assert "b.weight: holds values that are not finite" in refusal(ENTRIES, tensors)


def test_an_entry_without_a_place_and_a_place_without_an_entry_are_errors() -> None:
    elsewhere = table.Entry("c.weight", "params", ("convolution", "kernel"))
    assert "c.weight: the model has no params/convolution/kernel" in refusal([*ENTRIES, elsewhere], fitting())
    assert "params/conv/kernel: no tensor of the table fills all of it" in refusal([ENTRIES[0], ENTRIES[2]], fitting())


def test_loaded_values_lie_where_the_table_says() -> None:
    tensors = fitting()
    params = table.load(ENTRIES, tensors, TEMPLATE)["params"]
    np.testing.assert_array_equal(params["conv"]["kernel"][1], tensors["b.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(params["head"]["kernel"], tensors["head.weight"].T)
