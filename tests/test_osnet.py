"""OSNet has the published widths, streams and parameters; stacked copies compute what single ones do."""

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
from deskpro_jax.models import initialisers, osnet

MANIFEST = json.loads((Path(__file__).parent / "golden" / "osnet_manifest.json").read_text())


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def fast_jit(function: Any) -> Any:
    """Compiles without LLVM's optimisations, which take most of the time for functions that run once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def shapes(module: Any, *args: Any, **flags: Any) -> Any:
    """Returns the shapes of a module's variables without computing any."""
    return meta.unbox(jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a, **flags), *args))


def test_every_stage_runs_the_streams_that_are_that_deep() -> None:
    assert osnet.stages("abcd") == ["abcd", "bcd", "cd", "d"]
    assert osnet.stages("aacd") == ["acd", "cd", "cd", "d"]


def test_ten_light_convolutions_run_as_published_and_nine_in_the_released_code() -> None:
    assert sum(len(running) for running in osnet.stages("abcd")) == 1 + 2 + 3 + 4
    released = [("a" in running) + len(running) for running in osnet.stages("aacd")]
    assert sum(released) == 1 + 1 + 3 + 4


def test_widths_are_those_of_the_paper() -> None:
    assert osnet.backbone("x1_0").channels == osnet.backbone("ibn_x1_0").channels == (64, 256, 384, 512)
    for name, width in (("x0_75", 0.75), ("x0_5", 0.5), ("x0_25", 0.25)):
        assert osnet.backbone(name).channels == tuple(int(width * c) for c in (64, 256, 384, 512))
    for name, spec in osnet.BACKBONES.items():
        assert spec.channels == osnet.backbone(name.removeprefix("ibn_").removeprefix("ain_")).channels
        assert spec.norm == {"ibn": "ibn", "ain": "ain"}.get(name[:3], "batch")


def test_ain_has_instance_norms_in_the_blocks_that_its_search_found_and_ibn_in_those_of_conv2() -> None:
    norms = lambda name: [  # noqa: E731
        osnet.backbone(name).block_norm(f"block{stage}_{i}") for stage in (2, 3, 4) for i in range(2)
    ]
    assert norms("ain_x1_0") == ["ain", "ain", "batch", "ain", "ain", "batch"]
    assert norms("ibn_x1_0") == ["ibn", "ibn", "batch", "batch", "batch", "batch"]
    assert set(norms("x1_0")) == {"batch"}


def test_a_backbone_or_streams_that_do_not_exist_are_errors_that_name_field_and_choices() -> None:
    with pytest.raises(InputError, match=r"model\.backbone is 'x2_0'; expected one of x1_0, x0_75, x0_5, x0_25"):
        osnet.backbone("x2_0")
    with pytest.raises(InputError, match=r"model\.streams is 'abca'; expected one of abcd, aacd"):
        osnet.stages("abca")


@pytest.mark.parametrize("name", ["x1_0", "x0_25", "ibn_x1_0"])
def test_parameter_counts_are_those_of_the_published_networks(name: str) -> None:
    published = MANIFEST[f"osnet_{name}"]
    classes = published["classifier.weight"][0]
    running = ("running_mean", "running_var")
    learned = [key for key in published if not key.endswith((*running, "num_batches_tracked"))]
    computed = shapes(osnet.OSNet(name, classes), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    total = sum(int(np.prod(published[key])) for key in learned)
    statistics = sum(int(np.prod(published[key])) for key in published if key.endswith(running))
    assert count(computed["params"]) == total
    assert count(computed["batch_stats"]) == statistics


@pytest.fixture(scope="module")
def narrow() -> tuple[Any, Any]:
    """The narrowest OSNet in evaluation, compiled for two images, and its variables."""
    model = osnet.OSNet("x0_25", 5, feature_dim=16)
    x = jnp.zeros((2, 48, 32, 3))
    variables = initialisers.draw(lambda key: model.init(key, x), 0)
    return fast_jit(model.apply), variables


def test_outputs_have_the_stated_names_and_shapes(narrow: tuple[Any, Any]) -> None:
    apply, variables = narrow
    outputs, middle = apply(variables, normal(0, 2, 48, 32, 3))
    assert {name: value.shape for name, value in outputs.items()} == {
        "logits": (1, 2, 5),
        "features": (1, 2, 16),
        "embeddings": (1, 2, 16),
    }
    assert {name: value.shape for name, value in middle.items()} == {
        "trunk": (2, 6, 4, 96),
        "feature_map": (2, 3, 2, 128),
    }


def test_in_evaluation_an_image_does_not_see_other_images_of_its_batch(narrow: tuple[Any, Any]) -> None:
    apply, variables = narrow
    one, other = normal(0, 2, 48, 32, 3), normal(1, 2, 48, 32, 3)
    other[0] = one[0]
    outputs, again = apply(variables, one)[0], apply(variables, other)[0]
    for name, value in outputs.items():
        np.testing.assert_array_equal(value[:, 0], again[name][:, 0])
    assert (outputs["logits"][:, 1] != again["logits"][:, 1]).all()


@pytest.mark.parametrize("streams", osnet.OS_STREAMS)
def test_stacked_blocks_compute_what_single_blocks_do(streams: str) -> None:
    x = normal(0, 2, 2, 4, 3, 32)
    stacked, single = osnet.OSBlock(64, (2,), streams), osnet.OSBlock(64, (), streams)
    variables = initialisers.draw(lambda key: stacked.init(key, x, train=False), 0)
    run = lambda block: fast_jit(lambda v, x: block.apply(v, x, train=True, mutable=["batch_stats"]))  # noqa: E731
    computed, stats = run(stacked)(variables, x)
    one_by_one = run(single)
    for copy in range(2):
        one, one_stats = one_by_one(jax.tree.map(lambda leaf: leaf[copy], variables), x[copy])  # noqa: B023
        np.testing.assert_allclose(computed[copy], one, rtol=1e-4, atol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[copy], b, rtol=1e-4, atol=1e-6),  # noqa: B023
            stats,
            one_stats,
        )


def released_block() -> tuple[osnet.OSBlock, Any]:
    block = osnet.OSBlock(64, (), "aacd")
    x = jnp.zeros((1, 2, 2, 64))
    return block, initialisers.draw(lambda key: block.init(key, x, train=False), 0)


def test_the_released_codes_block_has_no_parameters_of_stream_b() -> None:
    _, variables = released_block()
    for depth, running in enumerate(("acd", "cd", "cd", "d")):
        stage = variables["params"][f"stage{depth}"]
        assert stage["depthwise"]["kernel"].shape == (len(running), 3, 3, 16)
        assert stage["pointwise"]["kernel"].shape == (len(running), 16, 16)


def test_the_released_codes_block_counts_stream_a_twice() -> None:
    # With streams b, c and d silenced in their last layers, what is added to the input is stream a's output only.
    x = 10.0 + normal(0, 2, 3, 2, 64)
    _, released = released_block()
    published = osnet.OSBlock(64)
    silent = initialisers.draw(lambda key: published.init(key, x, train=False), 0)
    added = {}
    for streams, variables in (("aacd", released), ("abcd", silent)):
        params = jax.tree.map(np.array, variables["params"])
        for depth in range(1, 4):
            params[f"stage{depth}"]["bn"]["scale"][:] = 0.0
        for name in ("conv1", "gate", "conv3"):
            params[name] = jax.tree.map(np.array, released["params"][name])
        params["conv3"]["bn"]["scale"][:] = 0.1  # small enough for the last ReLU to let all of it through
        for name in ("pointwise", "depthwise"):
            params["stage0"][name]["kernel"][0] = released["params"]["stage0"][name]["kernel"][0]
        block = osnet.OSBlock(64, (), streams)
        y = fast_jit(lambda v, x, block=block: block.apply(v, x, train=False))({**variables, "params": params}, x)
        added[streams] = np.asarray(y) - x
    assert np.abs(added["abcd"]).max() > 0.1
    np.testing.assert_allclose(added["aacd"], 2 * added["abcd"], rtol=1e-3, atol=1e-4)


def test_the_released_codes_block_moves_the_statistics_of_stream_a_twice() -> None:
    x = normal(0, 4, 3, 2, 64)
    block, variables = released_block()
    for name in ("pointwise", "depthwise"):  # the first stage of all three streams computes the same
        kernel = variables["params"]["stage0"][name]["kernel"]
        kernel[:] = kernel[:1]
    _, moved = fast_jit(lambda v, x: block.apply(v, x, train=True, mutable=["batch_stats"]))(variables, x)
    a, c, d = moved["batch_stats"]["stage0"]["bn"]["mean"]
    np.testing.assert_array_equal(c, d)
    np.testing.assert_allclose(a, 1.9 * c, rtol=1e-5)
    assert np.abs(c).max() > 1e-3


@pytest.mark.parametrize("name", ["x0_75", "x0_5", "ibn_x1_0", "ain_x0_25"])
def test_trunk_and_tail_reduce_the_image_eightfold_and_sixteenfold(name: str) -> None:
    spec = osnet.backbone(name)
    image = jax.ShapeDtypeStruct((2, 64, 32, 3), jnp.float32)
    run = lambda module, x: jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, train=False)[0], x)  # noqa: E731
    trunk = run(osnet.Trunk(spec), image)
    assert trunk.shape == (2, 8, 4, spec.channels[2])
    assert run(osnet.Tail(spec, (3,)), jax.ShapeDtypeStruct((3, *trunk.shape), jnp.float32)).shape == (
        3,
        2,
        4,
        2,
        spec.channels[3],
    )
