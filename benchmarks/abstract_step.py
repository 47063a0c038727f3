"""The training step of a configuration, its arguments as shapes alone: to be traced and compiled without any data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from deskpro_jax.methods import deskpro
from deskpro_jax.models.contract import Counts
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.models.streams import Streams, with_choices
from deskpro_jax.runtime import sharding
from deskpro_jax.train import optimisers
from deskpro_jax.train import step as train

RATE = 3.5e-4


@dataclass(frozen=True)
class AbstractStep:
    """A student step on a mesh.

    Attributes:
        step: jitted; its state is donated, as in training.
        arguments: state, the teacher's variables (None without one), batch and key, as `jax.ShapeDtypeStruct`.
        module: what is trained.
        teacher: the frozen teacher, None without one.
        optimizer: as in training.
        mesh: the devices.
    """

    step: Any
    arguments: tuple[Any, Any, Any, Any]
    module: Streams
    teacher: Streams | None
    optimizer: Any
    mesh: Mesh


def student_step(config: ml_collections.ConfigDict, classes: int, mesh: Mesh) -> AbstractStep:
    """Builds the student step that a run of this configuration takes.

    Args:
        config: the whole configuration.
        classes: identities of the training split.
        mesh: from `sharding.make_mesh`.
    """
    module = deskpro.build(config, Counts(classes))
    distils = module.face_stream is not None and config.loss.alpha > 0
    teacher = deskpro.build_teacher(config, Counts(classes)) if distils else None
    optimizer = optimisers.adam(RATE, config.train.weight_decay)
    state = jax.eval_shape(lambda v: train.create_state(v, optimizer), _shapes(module, classes))
    fixed = _shapes(teacher, classes) if teacher else None
    step = train.make_train_step(module, optimizer, config, deskpro.recipe(config), teacher, mesh=mesh)
    step = train.jit_step(step, mesh, state, fixed)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return AbstractStep(step, (state, fixed, batch_shapes(config, module, mesh), key), module, teacher, optimizer, mesh)


def batch_shapes(config: ml_collections.ConfigDict, module: Streams, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the arrays of a batch of `data.identities` x `data.images_per_identity` images, padded to the mesh."""
    d = config.data
    size = -(-d.identities * d.images_per_identity // mesh.size) * mesh.size
    body, face = (size, *d.body_size), (size, *d.face_size)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {"identity": ((size,), np.int32)}
    shapes |= dict.fromkeys(("valid", "has_face", "has_mask"), ((size,), np.bool_))
    if module.body_stream is not None:
        shapes |= {"body": ((*body, 3), np.uint8), "cloth_mask": (body, np.uint8)}
    if module.face_stream is not None:
        shapes["face"] = ((*face, 3), np.uint8)
        if config.loss.alpha > 0:
            shapes["restored_face"] = ((*face, 3), np.uint8)
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


def tree_bytes(tree: Any) -> int:
    """Returns the bytes of all arrays of a tree, each whole."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def device_bytes(mesh: Mesh, tree: Any) -> int:
    """Returns the bytes of a tree that lie on one device."""
    shapes = jax.tree.map(
        lambda leaf, place: int(np.prod(place.shard_shape(leaf.shape))) * leaf.dtype.itemsize,
        tree,
        sharding.placement(mesh, tree),
    )
    return sum(jax.tree.leaves(shapes))


def _shapes(module: Streams, classes: int) -> Any:
    # Few identities are drawn, and the classifiers widened: a hundred thousand would fill gigabytes for their shape.
    drawn = init_variables(with_choices(module, num_classes=1), 0)

    def widen(path: tuple[Any, ...], leaf: np.ndarray) -> jax.ShapeDtypeStruct:
        is_classifier = [entry.key for entry in path[-2:]] == ["classifier", "kernel"]
        shape = (*leaf.shape[:-1], classes) if is_classifier else leaf.shape
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(widen, drawn)
