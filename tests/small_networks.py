"""DeSKPro at its narrowest, with statistics that matter: as the tensors of a released file, and as a workdir."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import base
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.weights import export, load
from deskpro_jax.weights.families import Stream
from deskpro_jax.weights.opening import PLACES

PREFIXES = {"body": "nocloth_net.", "student": "lr_face_net.", "teacher": "face_net."}
DIMENSION = 8
IDENTITIES = 3


def spec(
    role: str,
    attention: str = "none",
    family: str = "deskpro",
    *,
    backbone: str = "x0_25",
    dimension: int = DIMENSION,
    identities: int = IDENTITIES,
) -> Stream:
    """Returns what a network of `role` is called and how large it is."""
    return Stream(role, PREFIXES[role] if family == "deskpro" else "", backbone, attention, dimension, identities)


@functools.cache
def drawn(stream: Stream, os_streams: str, seed: int = 0) -> dict[str, Any]:
    """Returns variables of a network, its normalisation and biases away from their initial 0 and 1."""
    rng = np.random.default_rng(seed)

    def move(path: Any, leaf: np.ndarray) -> np.ndarray:
        name = path[-1].key
        if name in ("bias", "mean"):
            return (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32)
        return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32) if name in ("scale", "var") else leaf

    return jax.tree_util.tree_map_with_path(move, load.initial_variables(stream, os_streams, seed))


@functools.cache
def small(
    os_streams: str, attention: str = "released", identities: int = IDENTITIES, dimension: int = DIMENSION
) -> dict[str, np.ndarray]:
    """Returns a whole DeSKPro, as a released file has it."""
    tensors: dict[str, np.ndarray] = {}
    for role in ("teacher", "student", "body"):
        kind = attention if role == "body" else "none"
        stream = spec(role, kind, identities=identities, dimension=dimension)
        tensors |= export.to_tensors("deskpro", stream, os_streams, drawn(stream, os_streams), 5, {})
    return tensors


def only(role: str, tensors: dict[str, np.ndarray], *, prefix: bool = True) -> dict[str, np.ndarray]:
    """Returns the tensors of one network, with or without its prefix."""
    start = PREFIXES[role]
    return {(n if prefix else n.removeprefix(start)): v for n, v in tensors.items() if n.startswith(start)}


def save_workdir(folder: Path, roles: dict[str, Stream], os_streams: str, step: int = 7) -> dict[str, Any]:
    """Saves networks as the checkpoints of a workdir, with their configuration; returns the variables by role."""
    states: dict[str, dict[str, Any]] = {}
    variables: dict[str, Any] = {}
    for number, (role, stream) in enumerate(roles.items()):
        phase, name = PLACES[role]
        variables[role] = drawn(stream, os_streams, number)
        state = states.setdefault(phase, {"params": {}, "batch_stats": {}})
        for collection, tree in variables[role].items():
            state[collection][f"{name}_stream"] = jax.tree.map(jnp.asarray, tree)
    for phase, state in states.items():
        with CheckpointStore(folder / phase / "checkpoints", best_metric=None, asynchronous=False) as store:
            store.save(step, state, data={}, wait=True)
    (folder / "config.json").write_text(config_of(roles, os_streams).to_json_best_effort())
    return variables


def config_of(roles: dict[str, Stream], os_streams: str) -> ConfigDict:
    """Returns the configuration of a run that trained these networks."""
    first = next(iter(roles.values()))
    config = base.get_config()
    config.model.update({"backbone": first.backbone, "streams": os_streams, "feature_dim": first.feature_dim})
    config.model.body = "body" in roles
    config.model.attention = roles["body"].attention if "body" in roles else "none"
    config.model.face = next((role for role in ("student", "teacher") if role in roles), "none")
    return config
