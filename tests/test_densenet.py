"""DenseNet has torchvision's layers and names; rows that do not count and recomputation change nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from deskpro_jax.errors import InputError
from deskpro_jax.models import densenet, initialisers
from deskpro_jax.models.densenet import DenseNet, DenseNetBackbone
from deskpro_jax.weights import published

MANIFEST = json.loads((Path(__file__).parent / "golden" / "methods" / "reidcaps_manifest.json").read_text())
TORCHVISION = {name.removeprefix("base."): tuple(shape) for name, shape in MANIFEST.items() if name.startswith("base.")}
SMALL = DenseNetBackbone((1, 2, 1, 1), growth=4, stem=8)


def drawn(module: DenseNet) -> Any:
    return initialisers.draw(lambda key: module.init(key, jnp.zeros((1, 64, 64, 3)), train=False), 0)


def normal(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(3).standard_normal(shape), jnp.float32)


def test_names_and_shapes_are_torchvisions_of_both_ages() -> None:
    module = DenseNet(densenet.densenet("densenet121"))
    images = jnp.zeros((1, 64, 64, 3))
    shapes = meta.unbox(jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images))
    current, older = densenet.imagenet_names("nothing", (r"^", "features."))
    entries, absent = published.entries(current, shapes)
    assert not absent
    expected = {n for n in TORCHVISION if not n.endswith("num_batches_tracked") and not current.ignores(n)}
    assert {entry.name for entry in entries} == expected
    old = {entry.name for entry in published.entries(older, shapes)[0]}
    assert "features.denseblock4.denselayer16.norm.2.running_var" in old
    assert "features.denseblock1.denselayer1.conv.1.weight" in old
    assert {"features.norm0.weight", "features.transition1.conv.weight", "features.norm5.bias"} <= old
    assert len(old) == len(expected)


def test_maps_have_the_published_sizes_and_csa_refines_the_middle_one() -> None:
    assert densenet.densenet("densenet121").features == 1024
    module = DenseNet(SMALL, attention="paper")
    x, middle = jax.eval_shape(lambda v, x: module.apply(v, x, train=False), drawn(module), jnp.zeros((2, 128, 64, 3)))
    assert x.shape == (2, 4, 2, SMALL.features)
    assert {name: array.shape for name, array in middle.items()} == {
        "trunk": (2, 8, 4, 7),
        "refined": (2, 8, 4, 7),
        "attention": (2, 8, 4),
    }


def test_rows_that_do_not_count_move_no_statistics() -> None:
    module, images = DenseNet(SMALL), normal(4, 64, 64, 3)
    variables = drawn(module)
    run = jax.jit(lambda x, valid: module.apply(variables, x, train=True, valid=valid, mutable=["batch_stats"]))
    (x, _), moved = run(images, jnp.array([True, True, True, False]))
    (other, _), again = run(images.at[3].set(9.0), jnp.array([True, True, True, False]))
    np.testing.assert_array_equal(x[:3], other[:3])
    jax.tree.map(np.testing.assert_array_equal, moved, again)


@pytest.mark.parametrize("remat", ["light", "blocks"])
def test_recomputation_gives_the_same_gradients(remat: str) -> None:
    variables, images = drawn(DenseNet(SMALL)), normal(2, 64, 64, 3)

    def gradients(module: DenseNet) -> Any:
        def loss(params: Any) -> Any:
            (x, _), _ = module.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return (x**2 * jnp.arange(x.shape[-1])).sum()

        return jax.jit(jax.grad(loss))(variables["params"])

    kept, computed = gradients(DenseNet(SMALL)), gradients(DenseNet(SMALL, remat=remat))
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(kept))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest), kept, computed)


def test_bfloat16_computes_in_bfloat16_and_is_close() -> None:
    variables, images = drawn(DenseNet(SMALL)), normal(2, 64, 64, 3)
    exact = DenseNet(SMALL).apply(variables, images, train=False)[0]
    rough = DenseNet(SMALL, dtype=jnp.bfloat16).apply(variables, images, train=False)[0]
    assert rough.dtype == jnp.bfloat16
    assert np.abs(np.asarray(rough, np.float32) - exact).max() < 0.05 * np.abs(exact).max()


def test_other_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.backbone is 'densenet169'; expected one of densenet121"):
        densenet.densenet("densenet169")
    with pytest.raises(InputError, match=r"features\.conv0\.weight has 96 channels; expected a DenseNet"):
        densenet.backbone_field({"features.conv0.weight": (96, 3, 7, 7)}, "features.conv0.weight")
    assert dataclasses.replace(SMALL, blocks=(1,)).features == 12
