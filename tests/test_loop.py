"""The training loop is short enough to read, logs norms, profiles steps, and checks what it logs."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import runs
import stand_in
from deskpro_jax.errors import RunError
from deskpro_jax.train import loop, loss_terms
from deskpro_jax.train.step import NORMS, norms


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with stand_in.small_streams():
        yield


def test_every_function_of_the_loop_is_short() -> None:
    tree = ast.parse(Path(loop.__file__).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert {"prepare", "run_step", "checkpoint", "score"} <= {function.name for function in functions}
    for function in functions:
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < 60, function.name
        taken = function.args
        assert len([*taken.posonlyargs, *taken.args, *taken.kwonlyargs]) <= 7, function.name
        assert taken.vararg is taken.kwarg is None, function.name


def test_norms_are_over_all_arrays() -> None:
    tree = {"a": jnp.full((2, 2), 2.0), "b": {"c": jnp.asarray([3.0])}}
    found = norms(tree, {"a": jnp.zeros(3)}, {"a": jnp.asarray([-4.0])})
    assert {name: float(value) for name, value in found.items()} == dict(zip(NORMS, (5.0, 0.0, 4.0), strict=True))


def test_a_loss_term_that_is_not_finite_is_named_and_a_norm_is_not_a_term() -> None:
    terms = {"kd": np.float32(1.0), "total": np.float32(1.0), "update_norm": np.float32(np.inf)}
    assert loss_terms.fetch([(3, terms)], "student", None) == [(3, {"kd": 1.0, "total": 1.0, "update_norm": np.inf})]
    terms = {**terms, "total": np.float32(np.nan)}
    with pytest.raises(RunError, match=r"the loss term total of the student phase is nan at step 3\. .*: none yet\."):
        loss_terms.fetch([(3, terms)], "student", None)
    with pytest.raises(RunError, match=r"the loss term kd of the student phase is inf at step 4\. .*: step 2\."):
        loss_terms.fetch([(4, {"total": np.inf, "kd": np.inf})], "student", 2)


def without_time(folder: Path) -> list[dict[str, object]]:
    return [{name: value for name, value in line.items() if name != "time"} for line in runs.lines(folder)]


def test_steps_are_profiled_and_norms_logged(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = runs.config(tiny_data, "face,debug", **stand_in.FIELDS)
    usual, profiled = tmp_path / "usual", tmp_path / "profiled"
    shown: set[str] = set()

    class Watched(loop.Progress):
        def advance(self, terms: dict[str, float] | None = None, steps: int = 1) -> None:
            shown.update(terms or {})
            super().advance(terms, steps)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Progress", Watched)
        runs.run(config, usual)
    lines = [line for line in runs.lines(usual / "student") if "total" in line]
    assert lines
    assert all(line[name] > 0 for line in lines for name in NORMS)
    assert "total" in shown
    assert shown.isdisjoint(NORMS)
    shutil.copytree(usual, profiled)
    shutil.rmtree(profiled / "student")
    config.train.profile_steps = (2, 3)  # free to change in a workdir
    runs.run(config, profiled)
    assert list((profiled / "student" / "profile").rglob("*.xplane.pb"))
    assert not (usual / "student" / "profile").exists()
    assert without_time(profiled / "student") == without_time(usual / "student")
