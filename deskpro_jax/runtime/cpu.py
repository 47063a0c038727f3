"""What is for CPUs only: the compiler's options, and working memory that stays mapped between calls.

The CPU backend asks the C library for a program's working memory anew in each call, and glibc maps and unmaps blocks
of that size (1.4 GB for a training step of the paper's body stream): every page is zeroed, and faulted in, each time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from typing import Any

import jax

# Sums over a feature map (BatchNorm's statistics, pooling and their gradients) by the library that computes the
# products, 17 to 20 % faster on a CPU than the loops the compiler writes for them. It is off by default, and jaxlib
# calls it experimental.
_COMPILER_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_NEVER = 2**31 - 1


def compiler_options() -> dict[str, str] | None:
    """Returns the `compiler_options` of `jax.jit` for programs on CPUs; None where this jaxlib does not have them."""
    return dict(_COMPILER_OPTIONS) if _compiler_has_options() else None


@functools.cache
def _compiler_has_options() -> bool:
    # An experimental option may leave, or change its values, with any release.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        try:
            jax.jit(lambda x: x + 1, compiler_options=_COMPILER_OPTIONS).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:
            return False
    return True


def keep_working_memory() -> bool:
    """Keeps working memory mapped between calls, where jax will compute on a CPU and the C library is glibc.

    For commands only, before jax is used for the first time: it changes how the whole process allocates. Programs for
    a single CPU then run in the thread that calls them, one after the other: their memory comes from the heap of that
    thread, and is free again when the next one asks for it. Otherwise two calls would hold twice as much.

    Returns:
        Whether memory is kept.
    """
    set_option = _c_function("mallopt")
    if set_option is None or may_use_accelerator():
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return bool(set_option(_MMAP_MAX, 0)) and bool(set_option(_TRIM_THRESHOLD, _NEVER))


def may_use_accelerator() -> bool:
    """Returns whether jax may choose a GPU or TPU, without initialising it: several processes have to be joined first.

    `JAX_PLATFORMS` decides where it is set; otherwise jax prefers any accelerator whose plugin is installed.
    """
    platforms: str | None = jax.config.jax_platforms  # type: ignore[attr-defined]
    if platforms:
        return platforms.split(",")[0] != "cpu"
    if any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu")):
        return True
    return bool(importlib.metadata.entry_points(group="jax_plugins"))


@contextlib.contextmanager
def freed_memory_returned() -> Iterator[None]:
    """Returns to the system what the block freed, which glibc otherwise keeps below everything allocated later."""
    yield
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


def _c_function(name: str) -> Any:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not every system has what glibc has
        return getattr(ctypes.CDLL(None), name)
    return None
