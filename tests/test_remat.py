"""Rematerialisation keeps less for the backward pass, and gives the same bits."""

from __future__ import annotations

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


class Two(nn.Module):
    """A block, and a block in three copies."""

    remat: str

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        x = run_block(OSBlock(64, name="first"), x, train=train, valid=valid, remat=self.remat)
        return run_block(OSBlock(64, (3,), name="second"), x, train=train, valid=valid, remat=self.remat)


@pytest.fixture(scope="module")
def results() -> dict[str, tuple[Any, ...]]:
    """By choice: loss, gradients and moved statistics, computed operation by operation, and the bytes kept."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((2, 4, 4, 64)), jnp.float32)
    valid = jnp.asarray([True, True])
    variables = initialisers.draw(lambda key: Two("none").init(key, images, train=False), 0)

    def run(remat: str) -> tuple[Any, ...]:
        def loss(params: Any) -> tuple[Array, Any]:
            out, moved = Two(remat).apply(
                {**variables, "params": params}, images, train=True, valid=valid, mutable=["batch_stats"]
            )
            return (out**2).sum(), moved

        value, backward, moved = jax.vjp(loss, variables["params"], has_aux=True)
        kept = {id(leaf): leaf.nbytes for leaf in jax.tree.leaves(backward) if hasattr(leaf, "nbytes")}
        return value, backward(jnp.ones_like(value))[0], moved, sum(kept.values())

    return {remat: run(remat) for remat in REMATS}


@pytest.mark.parametrize("remat", ["light", "blocks"])
def test_losses_gradients_and_statistics_are_the_same_bits(remat: str, results: dict[str, tuple[Any, ...]]) -> None:
    expected, found = (
        {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(result[:3])}
        for result in (results["none"], results[remat])
    )
    assert found.keys() == expected.keys()
    assert any("stage3" in name for name in found)
    for name, value in expected.items():
        assert np.abs(value).max() > 0, name
        assert found[name].tobytes() == value.tobytes(), name


def test_each_choice_keeps_less_than_the_one_before(results: dict[str, tuple[Any, ...]]) -> None:
    none, light, blocks = (results[remat][3] for remat in REMATS)
    assert light < 0.6 * none
    assert blocks < 0.6 * light


def test_an_unknown_choice_is_refused() -> None:
    config = base.get_config()
    config.train.remat = "everything"
    with pytest.raises(InputError, match=r"train\.remat is 'everything'; expected one of none, light, blocks"):
        experiment._check(config)
