"""Capsules: zero vectors, routing as plain loops, the margin loss, sizes that do not fit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from deskpro_jax import losses
from deskpro_jax.errors import InputError
from deskpro_jax.models import capsules


def normal(*shape: int) -> Any:
    return np.random.default_rng(5).standard_normal(shape)


def test_a_zero_vector_stays_zero_and_its_gradient_is_finite() -> None:
    vectors = jnp.asarray(np.stack([np.zeros(8), normal(8)]), jnp.float32)
    squashed, gradient = capsules.squash(vectors), jax.grad(lambda v: capsules.squash(v)[:, 0].sum())(vectors)
    np.testing.assert_array_equal(squashed[0], 0)
    np.testing.assert_array_equal(gradient[0], 0)  # v |v| has no slope there
    assert np.isfinite(gradient).all()
    zero = jnp.zeros((1, 4, 3))
    np.testing.assert_array_equal(jax.grad(lambda v: capsules.lengths_of(v).sum())(zero), 0)


def plain_squash(v: np.ndarray) -> np.ndarray:
    square = float(v @ v)
    return square / (1 + square) * v / np.sqrt(square)


@pytest.mark.parametrize("over", capsules.ROUTINGS)
def test_routing_is_that_of_plain_loops(over: str) -> None:
    batch, nodes, dim, identities, rounds = 2, 5, 3, 4, 3
    votes = normal(batch, nodes, dim, identities)
    expected = np.empty((batch, dim, identities))
    for b in range(batch):
        logits = np.zeros((nodes, identities))
        for number in range(rounds):
            exponentials = np.exp(logits)
            shares = exponentials / exponentials.sum(0 if over == "nodes" else 1, keepdims=True)
            for n in range(identities):
                total = sum(shares[i, n] * votes[b, i, :, n] for i in range(nodes))
                expected[b, :, n] = plain_squash(total)
            if number < rounds - 1:
                logits += np.einsum("idn,dn->in", votes[b], expected[b])
    np.testing.assert_allclose(capsules.route(jnp.asarray(votes), rounds, over), expected, atol=1e-6)


def test_nodes_are_in_the_order_of_channels_rows_and_columns_and_an_odd_edge_is_not_read() -> None:
    module, x = capsules.PrimaryCapsules(), jnp.asarray(normal(2, 5, 7, 6), jnp.float32)
    variables = meta.unbox(module.init(jax.random.key(0), x))
    nodes = module.apply(variables, x)
    assert nodes.shape == (2, 32 * 2 * 3, 8)
    row, column, channel = 1, 2, 17
    window = x[1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    values = []
    for number in range(8):
        one = variables["params"][f"capsules_{number}"]
        values.append(float((window * one["kernel"][..., channel]).sum() + one["bias"][channel]))
    np.testing.assert_allclose(nodes[1, channel * 6 + row * 3 + column], plain_squash(np.array(values)), rtol=1e-4)
    np.testing.assert_array_equal(module.apply(variables, x.at[:, 4].set(9).at[:, :, 6].set(9)), nodes)


def test_the_margin_loss_is_its_equation_and_leaves_masked_rows_out() -> None:
    lengths = np.abs(normal(3, 4, 6)) / 3
    labels, valid = np.array([0, 5, 2, -1]), np.array([True, True, True, False])
    expected = []
    for one in lengths:
        p = np.exp(one) / np.exp(one).sum(1, keepdims=True)
        total = 0.0
        for row in range(3):
            for identity in range(6):
                right = labels[row] == identity
                margin = max(0.6 - p[row, identity], 0) if right else max(p[row, identity] - 0.1, 0)
                total += margin**2 * (1 if right else 0.25)
        expected.append(total / 3)
    found = losses.capsule_margin(
        jnp.asarray(lengths), jnp.asarray(labels), jnp.asarray(valid), margins=(0.6, 0.1), absent_weight=0.25
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sizes_that_do_not_fit_are_refused_in_words() -> None:
    with pytest.raises(InputError, match="capsules need a map of 2x2 or more, not 1x3"):
        capsules.PrimaryCapsules().init(jax.random.key(0), jnp.zeros((1, 1, 3, 4)))
    module = capsules.IdentityCapsules(3)
    variables = meta.unbox(module.init(jax.random.key(0), jnp.zeros((1, 32, 8))))
    with pytest.raises(InputError, match="images of this size have 64 capsules, the network is made for 32"):
        module.apply(variables, jnp.zeros((1, 64, 8)))
    with pytest.raises(InputError, match=r"model\.routing_over is 'classes'; expected one of nodes, identities"):
        capsules.route(jnp.zeros((1, 2, 3, 4)), 1, "classes")
