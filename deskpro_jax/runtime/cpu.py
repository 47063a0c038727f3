"""Memory that programs work in on a CPU: mapped once and kept, and what was freed given back when there is much of it.

The CPU backend asks the C library for a program's working memory anew in each call, and glibc maps and unmaps blocks
of that size (1.4 GB for a training step of the paper's body stream): every page is zeroed, and faulted in, each time.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import jax

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_NEVER = 2**31 - 1
_MISSING = (OSError, AttributeError, TypeError)  # not every system has what glibc has


def keep() -> bool:
    """Keeps working memory mapped between calls; returns whether this C library can.

    To be called by commands alone, before jax is used for the first time: it changes how the whole process allocates.
    Programs for a single CPU then run in the thread that calls them, one after the other: their memory comes from the
    heap of that thread, and is free again when the next one asks for it. Otherwise two calls would hold twice as much.
    """
    found = _library("mallopt")
    if found is None:
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return bool(found(_MMAP_MAX, 0)) and bool(found(_TRIM_THRESHOLD, _NEVER))


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Gives back to the system what was freed meanwhile, which glibc keeps under everything that is needed later."""
    yield
    found = _library("malloc_trim")
    if found is not None:
        found(0)


def _library(name: str) -> Any:
    with contextlib.suppress(*_MISSING):
        return getattr(ctypes.CDLL(None), name)
    return None
