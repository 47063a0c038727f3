"""A compiled step is found again by what it is traced from, and by nothing less."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from deskpro_jax import extensions, programs, sharding

traced: list[int] = []


def step(state: dict[str, jax.Array], batch: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    traced.append(1)
    moved = jnp.tanh(batch @ state["kernel"]) * state["count"]
    return {"kernel": state["kernel"] - 0.1 * moved.mean(), "count": state["count"] + 1}, moved.sum()


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(np.asarray(jax.local_devices()), (sharding.DATA_AXIS,))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of an empty persistent cache."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()
    traced.clear()
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def given(mesh: Mesh, rows: int = 16) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    state = {"kernel": rng.normal(size=(12, 8)).astype(np.float32), "count": np.float32(1)}
    batch = {"x": rng.normal(size=(rows, 12)).astype(np.float32)}
    return sharding.put_replicated(mesh, state), sharding.put_batch(mesh, batch)["x"]


def ready(mesh: Mesh, *arguments: Any, **about: Any) -> Any:
    """As a command that has just started: with functions that were never traced."""
    jitted = jax.jit(lambda *values: step(*values), donate_argnums=0)
    return programs.ready_program(jitted, mesh, arguments or given(mesh), about)


def test_a_kept_program_is_found_without_tracing_and_does_the_same(mesh: Mesh, folder: Path) -> None:
    with programs.kept():
        first = ready(mesh, phase="student")(*given(mesh))
        assert traced == [1]
        arguments = given(mesh)
        program = ready(mesh, phase="student")
        assert traced == [1]
        again = program(*arguments)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert arguments[0]["kernel"].is_deleted()  # donated still
    assert again[0]["kernel"].sharding == first[0]["kernel"].sharding
    assert len(list(folder.glob("kept_step-*"))) == 1


def test_nothing_is_kept_outside_commands_or_without_a_cache(mesh: Mesh, folder: Path) -> None:
    ready(mesh)
    jax.config.update("jax_compilation_cache_dir", None)
    with programs.kept():
        ready(mesh)
    jax.config.update("jax_compilation_cache_dir", "gs://bucket/cache")
    with programs.kept():
        assert programs._place(mesh, given(mesh), {}) is None
    assert not list(folder.glob("kept_step-*"))
    assert programs._kept_for is None


def test_what_decides_the_program_decides_the_file(mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = tmp_path / "configuration.py"
    written.write_text("margin = 1\n")

    def place(arguments: Any = None, **about: Any) -> Path:
        with programs.kept([written]):
            found = programs._place(mesh, arguments or given(mesh), {"config": {"margin": 0.3}, **about})
        assert found is not None
        return found

    places = [place()]
    assert place() == places[0]
    places += [place(given(mesh, 24)), place(config={"margin": 0.4}), place(phase="teacher")]
    written.write_text("margin = 2\n")  # the configuration
    places.append(place())
    own = tmp_path / "my_losses.py"  # a fork's
    own.write_text("weight = 1\n")
    module = ModuleType("my_losses")
    module.__file__ = str(own)
    monkeypatch.setitem(sys.modules, "my_losses", module)
    places.append(place())
    own.write_text("weight = 2\n")
    places.append(place())
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_fast_math=false")
    places.append(place())
    with jax.enable_x64(True):
        places.append(place())
    before = jax.config.values["jax_default_matmul_precision"]
    jax.config.update("jax_default_matmul_precision", "highest")
    places.append(place())
    jax.config.update("jax_default_matmul_precision", before)
    monkeypatch.setattr(programs, "_processor", lambda: "of another machine")
    places.append(place())
    monkeypatch.setattr(programs, "_VERSIONS", ("jax",))
    places.append(place())
    edited = tmp_path / "package"  # an installed one
    edited.mkdir()
    (edited / "__init__.py").write_text("a = 1\n")
    package = ModuleType("package")
    package.__file__ = str(edited / "__init__.py")
    monkeypatch.setattr(programs, "_TRACED", (package,))
    places.append(place())
    (edited / "__init__.py").write_text("a = 10\n")
    places.append(place())
    assert len(set(places)) == len(places) == 14


def test_the_package_itself_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(programs.deskpro_jax, "__file__", str(tmp_path / "__init__.py"))
    before = programs._sources(())
    (tmp_path / "models" / "osnet.py").write_text("x = 1\n")
    between = programs._sources(())
    (tmp_path / "models" / "osnet.py").write_text("x = 2\n")
    assert before != between != programs._sources(()) != before
    assert not any("site-packages" in path for path in before)


def test_an_installed_extension_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "spread").mkdir()
    (tmp_path / "spread" / "__init__.py").write_text("")
    (tmp_path / "spread" / "losses.py").write_text("def spread(): pass\n")
    (tmp_path / "alone.py").write_text("def far(): pass\n")
    (tmp_path / "space").mkdir()  # a namespace package
    (tmp_path / "space" / "inner.py").write_text("def near(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    package, alone, inner = extensions.modules(["spread.losses:spread", "x1_0", "alone:far", "space.inner:near"])
    before = programs.listing(package), programs.listing(alone), programs.listing(inner)
    (tmp_path / "spread" / "helper.py").write_text("")
    (tmp_path / "alone.py").write_text("def far(): return 1\n")
    (tmp_path / "space" / "inner.py").write_text("def near(): return 1\n")
    assert programs.listing(package) != before[0]
    assert programs.listing(alone) != before[1]
    assert programs.listing(inner) != before[2]
    for name in ("spread", "spread.losses", "alone", "space", "space.inner"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("damage", ["one bit", "half", "empty", "another format"])
def test_a_damaged_file_is_traced_anew_and_replaced(
    mesh: Mesh, folder: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    with programs.kept():
        first = ready(mesh)(*given(mesh))
        (place,) = folder.glob("kept_step-*")
        whole = place.read_bytes()
        flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
        unknown = programs.hashlib.sha256(b"unknown").digest() + b"unknown"
        place.write_bytes({"one bit": flipped, "half": whole[: len(whole) // 2], "empty": b""}.get(damage, unknown))
        for path in folder.glob("*-cache"):
            path.unlink()
        again = ready(mesh)(*given(mesh))
    assert len(traced) == 2
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert str(place) in caplog.text
    assert place.read_bytes() != b""


def test_a_program_from_the_cache_of_jax_is_used_and_not_written_again(mesh: Mesh, folder: Path) -> None:
    with programs.kept():
        ready(mesh)
        (place,) = folder.glob("kept_step-*")
        place.unlink()
        jax.clear_caches()
        state, _ = ready(mesh)(*given(mesh))
    assert float(state["count"]) == 2
    assert not place.exists()


def test_a_disk_that_takes_nothing_ends_no_run(
    mesh: Mesh, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(contents: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(programs, "write_whole", full)
    with programs.kept():
        state, _ = ready(mesh)(*given(mesh))
    assert float(state["count"]) == 2
    assert "not kept for the next start: [Errno 28]" in caplog.text
