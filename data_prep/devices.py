"""A network on all devices: jitted once per shape, its weights on every device, each batch split over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from deskpro_jax.runtime import sharding

_CPU_BATCH, _BATCH = 8, 32  # images at a time on a CPU, and on each accelerator


def all_devices() -> Mesh:
    """Returns the mesh of all devices, along the batch."""
    return Mesh(np.asarray(jax.devices()), (sharding.DATA_AXIS,))


def batch_rows(mesh: Mesh, rows: int | None = None) -> int:
    """Returns the images of a batch: the number asked for, rounded up so that the devices get the same number.

    Args:
        mesh: the devices.
        rows: the number asked for; None leaves it to the kind of device.
    """
    if rows is None:
        rows = _CPU_BATCH if mesh.devices.flat[0].platform == "cpu" else _BATCH * mesh.size
    return -(-rows // mesh.size) * mesh.size


def spread(
    function: Callable[[Any, dict[str, Array]], Any], variables: Any, mesh: Mesh
) -> Callable[[Mapping[str, np.ndarray]], Any]:
    """Puts a network on the devices.

    Args:
        function: `(variables, batch) -> outputs`, pure; the first axis of all arrays of both is the image.
        variables: its weights, a tree of host arrays.
        mesh: the devices.

    Returns:
        `batch -> outputs`, both with a multiple of the number of devices as first axis; the outputs are on the devices
        and may still be being computed.
    """
    whole, rows = sharding.replicated(mesh), sharding.split_batch(mesh)
    compiled = jax.jit(function, in_shardings=(whole, rows), out_shardings=rows)
    placed = sharding.put_replicated(mesh, variables)
    return lambda batch: compiled(placed, sharding.put_batch(mesh, batch))
