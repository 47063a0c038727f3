"""Describes where and with what something was measured: processor, memory, versions, load, date."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "pillow"),
    *("simplejpeg", "onnxruntime", "torch"),
)


def describe() -> dict[str, Any]:
    """Returns the description as JSON values; a package that is not installed is left out."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "accelerators": _accelerators(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "commit": _commit(),
        "load": load(),
    }


def processor() -> str:
    """Returns the model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Returns the versions of those `packages` that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def load() -> list[float]:
    """Returns the load average over 1, 5 and 15 minutes: other work disturbs what is measured."""
    return [round(value, 2) for value in os.getloadavg()]


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _accelerators() -> list[str]:
    """Returns the names of NVIDIA cards; asked of the driver, so that this process occupies none of them."""
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()


def _commit() -> str | None:
    folder = str(Path(__file__).parent)
    commit = _output("git", "-C", folder, "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with changes" if commit and changed else commit or None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
