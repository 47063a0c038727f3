"""The state of a training: its shapes and shardings, its initial values, and the tree that is saved."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh

from deskpro_jax.runtime import sharding
from deskpro_jax.train.step import TrainState, create_state


def expected_state(variables: Any, optimizer: Any, mesh: Mesh) -> TrainState:
    """Returns shapes, types and shardings of a state, without its values."""
    shapes = jax.eval_shape(lambda v: create_state(v, optimizer), variables)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        sharding.placement(mesh, shapes),
    )


def initial_state(variables: Any, optimizer: Any, mesh: Mesh) -> TrainState:
    """Returns the state before the first step, on the devices."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, expected_state(variables, optimizer, mesh))
    create = jax.jit(lambda v: create_state(v, optimizer), out_shardings=shardings)
    return create(sharding.put_variables(mesh, variables))


def as_tree(state: TrainState) -> dict[str, Any]:
    """Returns the state as the nested dict that a checkpoint holds."""
    return {
        "step": state.step,
        "params": state.params,
        "batch_stats": state.batch_stats,
        "opt_state": state.opt_state,
    }
