"""The device mesh: batches split over it, networks whole on every device, their classifiers split if configured.

`mesh.data` devices along the batch times `mesh.model` devices that share the classifiers. Every device of both axes
works on its own rows; only the classifiers, whose size grows with the identities, are split along the model axis,
and so are the logits: [7, batch, identities] is never whole on a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from deskpro_jax.errors import InputError

DATA_AXIS, MODEL_AXIS = "data", "model"

_CLASSIFIER = "classifier"  # how names of modules begin whose parameters have the identities on their last axis


def make_mesh(config: ml_collections.ConfigDict) -> Mesh:
    """Returns the mesh that `config.mesh` describes, over the devices of all processes.

    Raises:
        InputError: there are not as many devices as it asks for, or some process would have none of them.
    """
    devices, data, model = jax.device_count(), config.mesh.data, config.mesh.model
    if not 1 <= model <= devices:
        raise InputError(f"mesh.model is {model}, but there are {devices} devices: set it to 1 up to that.")
    if data == -1 and devices % model:
        raise InputError(
            f"mesh.model is {model}, which does not divide the {devices} devices: change it, or set mesh.data to how "
            "many groups of that many devices to use."
        )
    count = devices if data == -1 else data * model
    if not 1 <= count <= devices:
        times = f" and mesh.model is {model}" if model > 1 else ""
        raise InputError(
            f"mesh.data is {data}{times}, but there are {devices} devices: set it to at most {devices // model}, "
            "or to -1 for all of them."
        )
    if jax.process_count() > 1 and count < devices:
        raise InputError(
            f"mesh.data x mesh.model is {count}, but the {jax.process_count()} processes have {devices} devices, and "
            "each process has to take part: set mesh.data to -1."
        )
    used = np.asarray(jax.devices()[:count])
    return Mesh(used, (DATA_AXIS,)) if model == 1 else Mesh(used.reshape(-1, model), (DATA_AXIS, MODEL_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over all devices, those of the model axis too."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def on_cpu(mesh: Mesh) -> bool:
    """Returns whether the devices are processors, simulated ones too."""
    return bool(mesh.devices.flat[0].platform == "cpu")


def model_devices(mesh: Mesh) -> int:
    """Returns how many devices share the classifiers; 1 where every device holds them whole."""
    return int(mesh.shape.get(MODEL_AXIS, 1))


def placement(mesh: Mesh, tree: Any) -> Any:
    """Returns the sharding of every leaf of parameters, of a training state, or of any tree with such parts.

    Classifiers [..., features, identities] and their moments are split over the model axis: along the identities where
    their number is a multiple of the devices, else along the features, and `in_step` exchanges the parts in every step.
    The shapes do not depend on the mesh, so that a checkpoint fits every other mesh. All else is whole on every device.

    Args:
        mesh: the devices.
        tree: arrays, or anything with `shape`.

    Raises:
        InputError: neither the identities nor the features divide among the devices of the model axis.
    """
    split = model_devices(mesh)

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        if split == 1 or not shape or not is_classifier(path):
            return replicated(mesh)
        if shape[-1] % split == 0:
            return _along_identities(mesh, len(shape))
        if path[-1] != jax.tree_util.DictKey("kernel"):  # small: biases
            return replicated(mesh)
        *parts, features, identities = shape
        if features % split == 0:
            return NamedSharding(mesh, PartitionSpec(*[None] * len(parts), MODEL_AXIS, None))
        raise InputError(
            f"mesh.model is {split}, and neither the {identities} identities nor model.feature_dim ({features}) are a "
            "multiple of it: choose a number that divides one of them."
        )

    return jax.tree_util.tree_map_with_path(place, tree)


def in_step(mesh: Mesh | None, params: Any) -> Any:
    """Splits the classifiers along the identities within a jitted step, however they are kept between steps."""
    if mesh is None or model_devices(mesh) == 1:
        return params

    def constrain(path: tuple[Any, ...], leaf: Array) -> Array:
        if not leaf.ndim or not is_classifier(path):
            return leaf
        return jax.lax.with_sharding_constraint(leaf, _along_identities(mesh, leaf.ndim))

    return jax.tree_util.tree_map_with_path(constrain, params)


def split_logits(mesh: Mesh | None, logits: Float[Array, "parts batch classes"]) -> Float[Array, "parts batch classes"]:
    """Keeps logits in parts within a jitted step: rows over the data axis, identities over the model axis."""
    if mesh is None or model_devices(mesh) == 1:
        return logits
    return jax.lax.with_sharding_constraint(logits, NamedSharding(mesh, PartitionSpec(None, DATA_AXIS, MODEL_AXIS)))


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Makes global arrays of this process's part of a batch.

    Args:
        mesh: the mesh.
        batch: arrays whose first axis is this process's part of the global batch.

    Returns:
        Arrays of the whole batch, split over the mesh.
    """
    sharding = split_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Puts a tree of host arrays, the same in every process, on all devices."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def put_variables(mesh: Mesh, variables: Any) -> Any:
    """Puts the variables of a network, host arrays that are the same in every process, as `placement` shards them."""

    def put(leaf: Any, sharding: NamedSharding) -> Array:
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    return jax.tree.map(put, variables, placement(mesh, variables))


def without_model_axis(mesh: Mesh) -> Mesh:
    """Returns the same devices with the batch axis only, for arrays that every process has to hold whole."""
    return Mesh(mesh.devices.reshape(-1), (DATA_AXIS,))


def is_classifier(path: tuple[Any, ...]) -> bool:
    """Returns whether a leaf of parameters, or of their moments, belongs to a classifier, by its path in the tree."""
    return any(str(getattr(entry, "key", "")).startswith(_CLASSIFIER) for entry in path)


def _along_identities(mesh: Mesh, axes: int) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*[None] * (axes - 1), MODEL_AXIS))
