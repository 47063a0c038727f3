"""How the compiler is asked to build the two programs that matter: the training step and the embedding."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from deskpro_jax.runtime import cpu, sharding

# Sums over a feature map (BatchNorm's statistics, pooling and their gradients) by the library that computes the
# products, 17 to 20 % faster on a CPU than the loops the compiler writes for them. It is off by default, and jaxlib
# calls it experimental.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


CACHE_FOLDER = "xla_cache"  # of a workdir


def use_persistent_cache(folder: Path) -> None:
    """Keeps compiled programs in a folder, unless the environment names another one.

    Args:
        folder: is made where it is missing.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))


def use_cache_of(workdir: Path) -> None:
    """Reads and keeps compiled programs where the training of a workdir kept them, if that folder can be written.

    Args:
        workdir: a workdir; anything else has no such folder.
    """
    folder = workdir / CACHE_FOLDER
    if folder.is_dir() and os.access(folder, os.W_OK):
        use_persistent_cache(folder)


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """Returns the `compiler_options` of `jax.jit` for the mesh's devices; None for the compiler's own.

    Args:
        mesh: the devices that the program runs on.
    """
    return dict(_CPU_OPTIONS) if sharding.on_cpu(mesh) and _cpu_knows_them() else None


@functools.cache
def _cpu_knows_them() -> bool:
    """Whether this jaxlib has the options: an experimental one may leave or change its values with any release."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        try:
            jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:
            return False
    return True


def compile_now(jitted: Any, *arguments: Any) -> jax.stages.Compiled:
    """Compiles a jitted function, or reads it from the persistent cache, and gives back the memory that it took.

    Args:
        jitted: what `jax.jit` returned.
        arguments: as it will be called with; nothing is computed and nothing is donated.

    Returns:
        The program, for arguments of these shapes, types and places alone.
    """
    with _no_collection():
        lowered = jitted.lower(*arguments)
    with cpu.given_back():  # of the step of the paper's body stream 1.2 GB, 0.2 GB from the cache
        program: jax.stages.Compiled = lowered.compile()
    return program


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Leaves cyclic garbage for later: to look for it among what tracing makes and keeps is a quarter of tracing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
