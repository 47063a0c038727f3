"""The memory that a process occupies: now, and, of this one, at its peak."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path


def peak_bytes() -> int:
    """Returns the largest resident size since the process started, or since `forget_peak`.

    Linux keeps it with the address space; what `getrusage` says is inherited from the process that started this one.
    """
    return _field("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes(process: int | None = None) -> int:
    """Returns the resident size of now of this process or another, 0 where it has ended or the system does not tell."""
    return _field("VmRSS", process)


def forget_peak() -> None:
    """Begins a new peak, where the system can: after inputs are in place, it is the work alone that adds to it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _field(name: str, process: int | None = None) -> int:
    try:
        lines = Path(f"/proc/{process or 'self'}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def limit_threads(count: int) -> None:
    """Keeps this process, and all threads it will start, on `count` processors; call before importing jax or torch."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(allowed[:count]))
    for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)
