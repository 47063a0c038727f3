"""Compilation of the two programs that matter, the training step and the embedding, for every kind of device."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from deskpro_jax.runtime import cpu, sharding

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
    return cpu.compiler_options() if sharding.on_cpu(mesh) else None


def compile_now(jitted: Any, *arguments: Any) -> jax.stages.Compiled:
    """Compiles a jitted function, or reads it from the persistent cache, and frees the memory that this took.

    Args:
        jitted: what `jax.jit` returned.
        arguments: as it will be called with; nothing is computed and nothing is donated.

    Returns:
        The program, only for arguments of these shapes, types and shardings.
    """
    with _no_garbage_collection():
        lowered = jitted.lower(*arguments)
    with cpu.freed_memory_returned():  # of the step of the paper's body stream 1.2 GB, 0.2 GB from the cache
        program: jax.stages.Compiled = lowered.compile()
    return program


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # Looking for cyclic garbage among what tracing makes and keeps is a quarter of tracing.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
