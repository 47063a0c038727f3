"""The device mesh: batches split along it, states replicated over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from deskpro_jax.errors import InputError

DATA_AXIS = "data"


def make_mesh(config: ml_collections.ConfigDict) -> Mesh:
    """Returns the mesh that `config.mesh` describes, over the devices of all processes.

    Raises:
        InputError: there are not as many devices as `mesh.data` asks for.
    """
    count = jax.device_count() if config.mesh.data == -1 else config.mesh.data
    if not 1 <= count <= jax.device_count():
        raise InputError(
            f"mesh.data is {config.mesh.data}, but there are {jax.device_count()} devices: set it to at most that, "
            "or to -1 for all of them."
        )
    return Mesh(np.asarray(jax.devices()[:count]), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Makes global arrays of this process's part of a batch.

    Args:
        mesh: the mesh.
        batch: arrays whose first axis is this process's share of the global batch.

    Returns:
        Arrays of the whole batch, split over the mesh.
    """
    sharding = split_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Puts a tree of host arrays, the same in every process, on all devices."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)
