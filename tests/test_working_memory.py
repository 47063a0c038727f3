"""Working memory stays mapped from call to call, in commands that compute on a CPU, where the C library is glibc."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from deskpro_jax.runtime import cpu

SCRIPT = """
import json, resource, sys
import jax, jax.numpy as jnp
from deskpro_jax.runtime import cpu

kept = cpu.keep_working_memory() if "keep" in sys.argv else None
program = jax.jit(lambda a, b: jnp.tanh((a @ b) @ a).mean())  # 64 MiB in between

def call(seed):
    key = jax.random.key(seed)
    a, b = jax.random.normal(key, (4096, 64)), jax.random.normal(key, (64, 4096))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    found = float(program(a, b))
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for seed in range(3):
    call(seed)
calls = [call(seed) for seed in range(8)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"kept": kept, "found": [c[0] for c in calls], "faults": sorted(c[1] for c in calls), "peak": peak}))
"""


def run(*arguments: str) -> dict[str, object]:
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0", "JAX_PLATFORMS": "cpu"}
    environment |= {"PYTHONPATH": str(Path(cpu.__file__).parents[2]), "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_kept_memory_is_not_mapped_again_and_is_not_more() -> None:
    kept, usual = run("keep"), run()
    assert kept["kept"] is True
    assert kept["found"] == usual["found"]
    mapped = 2**26 // os.sysconf("SC_PAGE_SIZE")
    assert usual["faults"][4] > mapped / 2  # type: ignore[index]
    assert kept["faults"][4] < mapped / 20  # type: ignore[index]
    assert kept["peak"] < usual["peak"] + 2**15  # type: ignore[operator]  # KiB: half of what is in between


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert cpu.keep_working_memory() is False
    with cpu.freed_memory_returned():
        pass


PLATFORMS = """
import sys
import jax
from jax._src import xla_bridge
from deskpro_jax.runtime import cpu
sys.modules["jax_plugins"] = cpu if "plugin" in sys.argv else None
cpu.importlib.util.find_spec = lambda name: sys.modules.get(name)
kept = cpu.keep_working_memory()
assert not xla_bridge.backends_are_initialized()
print(kept, jax.config.read("jax_cpu_enable_async_dispatch"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
@pytest.mark.parametrize(
    ("platforms", "plugin", "kept"),
    [("cpu", "plugin", True), ("", "none", True), ("", "plugin", False), ("cuda,cpu", "none", False)],
)
def test_where_an_accelerator_may_be_used_nothing_changes(platforms: str, plugin: str, kept: bool) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": platforms, "PYTHONPATH": str(Path(cpu.__file__).parents[2])}
    command = [sys.executable, "-c", PLATFORMS, plugin]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(kept), str(not kept)]
