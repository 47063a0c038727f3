"""The compiler's options are taken where they are known, and left out where they are not."""

from __future__ import annotations

import gc

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from deskpro_jax.runtime import compilation, cpu, sharding


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(np.asarray(jax.local_devices()[:1]), (sharding.DATA_AXIS,))


def test_a_program_is_compiled_with_the_options(mesh: Mesh) -> None:
    options = compilation.compiler_options(mesh)
    assert options  # the pinned jaxlib knows them
    total = jax.jit(lambda x: x.sum(0), compiler_options=options)(np.ones((8, 64), np.float32))
    np.testing.assert_array_equal(total, np.full(64, 8, np.float32))


@pytest.mark.parametrize("unknown", [{"xla_cpu_of_another_release": "true"}, {"xla_cpu_opt_preset": "NO_SUCH_VALUE"}])
def test_unknown_options_are_left_out(mesh: Mesh, monkeypatch: pytest.MonkeyPatch, unknown: dict[str, str]) -> None:
    monkeypatch.setattr(cpu, "_COMPILER_OPTIONS", unknown)
    cpu._compiler_has_options.cache_clear()
    assert compilation.compiler_options(mesh) is None
    monkeypatch.undo()
    cpu._compiler_has_options.cache_clear()


def test_a_program_is_compiled_ahead_and_the_collector_goes_on(mesh: Mesh) -> None:
    seen: list[bool] = []

    def double(x: jax.Array) -> jax.Array:
        seen.append(gc.isenabled())
        return 2 * x

    program = compilation.compile_now(jax.jit(double, compiler_options=compilation.compiler_options(mesh)), np.ones(3))
    np.testing.assert_array_equal(program(np.ones(3)), np.full(3, 2.0))
    assert seen == [False]
    assert gc.isenabled()
