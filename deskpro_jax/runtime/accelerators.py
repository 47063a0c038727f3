"""Warns when a machine has a GPU and jax computes on the CPU all the same."""

from __future__ import annotations

import glob
import os
import sys

# Where Linux shows a GPU's driver, and how to get a jax that uses it.
_DRIVERS = {
    "/dev/nvidia[0-9]*": ("an NVIDIA GPU", "pip install 'deskpro_jax[cuda]'"),
    "/dev/dxg": ("a GPU (WSL)", "pip install 'deskpro_jax[cuda]'"),
    "/dev/kfd": ("an AMD GPU", "a jax for ROCm"),
}
_HIDDEN = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that leave none


def unused_gpu() -> str | None:
    """Returns the warning about a GPU that jax does not use; None where it uses it, or the CPU was chosen.

    Starts jax's backend only on a machine with a GPU.
    """
    driver = next((about for pattern, about in _DRIVERS.items() if glob.glob(pattern)), None)
    if driver is None or os.environ.get("CUDA_VISIBLE_DEVICES", "all") in _HIDDEN:
        return None
    import jax

    if (_platforms() or "").split(",")[0] == "cpu" or jax.default_backend() != "cpu":
        return None
    gpu, install = driver
    return (
        f"this machine has {gpu} that jax cannot use, so the CPU computes: install {install}, or a newer driver"
        " ('deskpro version' lists what jax finds); JAX_PLATFORMS=cpu if the CPU is meant."
    )


def _platforms() -> str | None:
    """Returns the platforms that the user chose (JAX_PLATFORMS), None where jax may choose."""
    import jax

    platforms: str | None = jax.config.jax_platforms  # type: ignore[attr-defined]
    return platforms


def warn_of_unused_gpu() -> None:
    """Prints the line of `unused_gpu` on standard error, the first of a run, where there is one."""
    if line := unused_gpu():
        print(f"warning: {line}", file=sys.stderr, flush=True)
