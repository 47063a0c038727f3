"""Rematerialisation has JAX keep less for the backward pass, and gives the same losses, gradients and statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from configs import base
from deskpro_jax import experiment
from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers
from deskpro_jax.models.osnet import OSBlock
from deskpro_jax.models.remat import REMATS, run_block

IMAGES = np.random.default_rng(0).standard_normal((3, 4, 4, 64))
VALID = np.array([True, True, False])


class Blocks(nn.Module):
    """A block, in copies where asked for."""

    remat: str
    groups: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        block = OSBlock(64, self.groups, dtype="float64", name="block")
        return run_block(block, x, train=train, valid=valid, remat=self.remat)


def loss_of(remat: str, groups: tuple[int, ...] = ()) -> tuple[Callable[[Any], tuple[Array, Any]], Any]:
    """Returns the loss of parameters, with the moved statistics, and parameters."""
    module = Blocks(remat, groups)
    drawn = initialisers.draw(lambda key: module.init(key, jnp.asarray(IMAGES), train=False), 0)
    params, stats = (
        jax.tree.map(lambda leaf: leaf.astype(np.float64), drawn[name]) for name in ("params", "batch_stats")
    )

    def loss(params: Any) -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": stats}
        images, valid = jnp.asarray(IMAGES), jnp.asarray(VALID)
        out, moved = module.apply(variables, images, train=True, valid=valid, mutable=["batch_stats"])
        return (out**2).sum(), moved

    return loss, params


def test_losses_gradients_and_statistics_are_the_same() -> None:
    by_choice = {}
    with jax.enable_x64(True):
        for remat in REMATS:
            loss, params = loss_of(remat)
            result = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
            leaves = jax.tree_util.tree_leaves_with_path(result)
            by_choice[remat] = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    expected = by_choice.pop("none")
    assert any("stage3" in name for name in expected)
    for leaves in by_choice.values():
        assert leaves.keys() == expected.keys()
        for name, value in expected.items():
            # In float64 nothing but the order of a sum may differ.
            np.testing.assert_allclose(leaves[name], value, rtol=1e-10, atol=1e-12 * np.abs(value).max(), err_msg=name)


@pytest.mark.parametrize("groups", [(), (3,)])
def test_each_choice_keeps_less_than_the_one_before(groups: tuple[int, ...]) -> None:
    kept = []
    with jax.enable_x64(True):
        for remat in REMATS:
            loss, params = loss_of(remat, groups)
            backward = jax.eval_shape(lambda p, loss=loss: jax.vjp(loss, p, has_aux=True)[1], params)
            kept.append(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward)))
    none, light, blocks = kept
    assert blocks < light < none


def test_an_unknown_choice_is_refused() -> None:
    config = base.get_config()
    config.train.remat = "everything"
    with pytest.raises(InputError, match=r"train\.remat is 'everything'; expected one of none, light, blocks"):
        experiment.validate(config)
