"""Initial values have the stated distributions, follow from the seed, and are built like those of flax."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from deskpro_jax.models import initialisers
from deskpro_jax.models.osnet import OSBlock


class Sampler(nn.Module):
    """One large parameter of each distribution."""

    @nn.compact
    def __call__(self) -> None:
        shape = (200, 300)
        self.param("normal", initialisers.normal(0.05), shape)
        self.param("same", initialisers.normal(0.05), shape)
        self.param("kaiming", initialisers.kaiming_fan_out(50), shape)
        self.param("uniform", initialisers.uniform(0.3), shape)
        self.param("fan_in", initialisers.uniform_fan_in(25), shape)
        self.param("constant", initialisers.constant(1.5), shape)
        self.variable("batch_stats", "mean", jnp.zeros, (3,))
        self.variable("batch_stats", "var", jnp.ones, (3,))


@pytest.mark.parametrize("source", ["draw", "init"])
def test_parameters_have_the_stated_distributions(source: str) -> None:
    module = Sampler()
    key = jax.random.key(0)
    params = (initialisers.draw(module.init, 0) if source == "draw" else meta.unbox(module.init(key)))["params"]
    for name, deviation in (("normal", 0.05), ("kaiming", math.sqrt(2 / 50))):
        values = np.asarray(params[name])
        assert values.std() == pytest.approx(deviation, rel=0.02)
        assert abs(values.mean()) < 0.02 * deviation
        assert np.abs(values).max() > 3.5 * deviation  # a normal distribution is not cut off
    for name, bound in (("uniform", 0.3), ("fan_in", 0.2)):
        values = np.asarray(params[name])
        assert np.abs(values).max() <= bound
        assert values.max() > 0.999 * bound
        assert values.min() < -0.999 * bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert (params["constant"] == 1.5).all()


def test_drawn_parameters_follow_from_the_seed_and_differ_between_parameters() -> None:
    module = Sampler()
    one, again, other = (initialisers.draw(module.init, seed) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    for name in ("normal", "uniform"):
        assert (one["params"][name] != other["params"][name]).mean() > 0.99
    assert (one["params"]["normal"] != one["params"]["same"]).mean() > 0.99


def test_values_drawn_in_portions_are_those_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = initialisers.draw(Sampler().init, 1)
    monkeypatch.setattr(initialisers, "_CHUNK", 1001)
    jax.tree.map(np.testing.assert_array_equal, initialisers.draw(Sampler().init, 1), whole)


def test_drawn_running_statistics_are_zero_and_one() -> None:
    stats = initialisers.draw(Sampler().init, 0)["batch_stats"]
    assert (stats["mean"] == 0).all()
    assert (stats["var"] == 1).all()


def test_drawn_variables_are_built_like_those_of_init() -> None:
    block, x = OSBlock(64, (2,), "aacd"), jnp.zeros((2, 1, 2, 2, 32))
    init = lambda key: block.init(key, x, train=False)  # noqa: E731
    kind = lambda leaf: (leaf.shape, str(leaf.dtype))  # noqa: E731
    expected = jax.tree.map(kind, meta.unbox(jax.jit(init)(jax.random.key(0))))
    assert jax.tree.map(kind, initialisers.draw(init, 0)) == expected
    assert {dtype for _, dtype in jax.tree.leaves(expected, is_leaf=lambda leaf: isinstance(leaf, tuple))} == {
        "float32"
    }
