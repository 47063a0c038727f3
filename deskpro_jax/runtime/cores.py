"""The processor cores that this process may use: a scheduler or `taskset` may give it fewer than the machine has."""

from __future__ import annotations

import os


def usable() -> list[int]:
    """Returns the numbers of the usable cores, at least one."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def count() -> int:
    """Returns the number of cores that this process may use."""
    return len(usable())
