"""Restore templates: the devices of a restored array, and whether a saved tree is the expected one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from deskpro_jax.errors import InputError

PyTree = Any

_SHOWN = 10  # differing entries that a message lists


def placed(template: PyTree) -> PyTree:
    """Returns the template with `jax.ShapeDtypeStruct` leaves that all have a sharding.

    Args:
        template: tree of arrays or `jax.ShapeDtypeStruct`; leaves without a sharding go to the first device, or, with
            several processes, onto every device.
    """
    default: jax.sharding.Sharding
    if jax.process_count() == 1:
        default = SingleDeviceSharding(jax.local_devices()[0])
    else:
        default = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec())

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(leaf, "sharding", None)
        return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=default if sharding is None else sharding)

    return jax.tree.map(place, template)


def saved_shapes(folder: Path) -> PyTree | None:
    """Returns the tree of a saved state with its shapes and types, None where it cannot be read.

    Args:
        folder: a step of a checkpoint folder.
    """
    try:
        metadata = ocp.PyTreeCheckpointHandler().metadata(folder.absolute() / "state")
    except Exception:  # restoring it raises what is wrong with it
        return None
    return getattr(metadata, "tree", metadata)


def _described(tree: PyTree) -> dict[str, str]:
    # Names like params/conv/kernel with "float32[3,3]"; containers of either side (dict, named tuple) read alike.
    described = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if getattr(leaf, "shape", None) is None:
            continue
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)  # Orbax stores a typed key as its data
        name = "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
        described[name] = f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"
    return described


def check_fits(folder: Path, saved_tree: PyTree, expected_tree: PyTree, partial: bool) -> None:
    """Compares names, shapes and types of a saved tree with those expected.

    Args:
        folder: the checkpoint, named in the message.
        saved_tree, expected_tree: trees whose leaves have `shape` and `dtype`.
        partial: whether the saved tree may hold more than the expected one.

    Raises:
        InputError: they differ; it lists the first ten differing entries.
    """
    saved, expected = _described(saved_tree), _described(expected_tree)
    names = list(expected)
    if not partial:
        names += [n for n in saved if n not in expected]
    differing = [n for n in names if saved.get(n) != expected.get(n)]
    if not differing:
        return
    lines = [
        f"  {n}: saved {saved.get(n, 'nothing')}, expected {expected.get(n, 'nothing')}" for n in differing[:_SHOWN]
    ]
    if len(differing) > _SHOWN:
        lines.append(f"  and {len(differing) - _SHOWN} more")
    raise InputError(
        f"checkpoint {folder} is of another model or optimiser: {len(differing)} of {len(names)} entries differ\n"
        + "\n".join(lines)
        + "\nuse the configuration it was trained with, or another workdir"
    )
