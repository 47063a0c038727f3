"""The benchmark of the frozen networks counts operations right and writes what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import networks
from deskpro_jax.runtime.flops import count_flops


class Toy(nn.Module):
    """One convolution."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Conv(5, (3, 3))(x)


def run(variables: object, images: jax.Array) -> jax.Array:
    return Toy().apply(variables, images.astype(jnp.float32))  # type: ignore[arg-type]


def flops(function: object, *shapes: tuple[int, ...]) -> int:
    return count_flops(jax.make_jaxpr(function)(*(np.zeros(shape, np.float32) for shape in shapes)).jaxpr)  # type: ignore[arg-type]


def test_operations_are_two_for_each_multiply_add() -> None:
    assert flops(lambda x, y: x @ y, (6, 7), (7, 4)) == 2 * 6 * 7 * 4
    assert flops(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (3, 6, 7), (3, 7, 4)) == 3 * 2 * 6 * 7 * 4
    grouped = nn.Conv(8, (3, 3), feature_group_count=4, use_bias=False)
    variables = grouped.init(jax.random.key(0), jnp.zeros((1, 10, 10, 4)))
    assert flops(lambda x: grouped.apply(variables, x), (2, 10, 10, 4)) == 2 * 2 * 10 * 10 * 8 * 9


def test_loops_and_calls_inside_count_every_turn() -> None:
    def looped(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (jax.jit(jnp.matmul)(carry, y), None), x, None, length=5)[0]

    assert flops(looped, (6, 7), (7, 7)) == 5 * 2 * 6 * 7 * 7


def test_every_network_that_prepare_runs_is_a_case() -> None:
    names = [case.name for case in networks.cases()]
    assert names == [
        *("SCHP lip", "SCHP atr", "SCHP pascal", "RetinaFace mobilenet0.25", "RetinaFace resnet50"),
        *("GPEN-BFR-256", "GPEN-BFR-512"),
    ]


def test_the_command_prints_a_table_and_writes_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "cases", lambda: [networks.Case("toy", run, Toy(), (8, 6, 3))])
    assert networks.main(["--batch=1,2", "--seconds=0", f"--out={tmp_path / 'toy.json'}"]) == 0
    assert "images/s" in capsys.readouterr().out
    results = json.loads((tmp_path / "toy.json").read_text())["results"]
    assert [result["batch"] for result in results] == [1, 2]
    for result in results:
        assert result["gflops"] == pytest.approx(2 * 8 * 6 * 5 * 27 / 1e9)
        assert result["parameters"] == 5 * 27 + 5
        assert result["images_per_second"] > 0
        assert len(result["batch_seconds"]) >= 3
    for flag, words in (("--batch=1,x", "--batch is '1,x'"), ("--only=nothing", "--only is 'nothing'")):
        assert networks.main([flag]) == 2
        assert words in capsys.readouterr().err
