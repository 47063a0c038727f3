"""Script of test_sharding.py: three steps of a small network on several meshes, and what they leave, as JSON.

Arguments: an empty folder. The network is what of DeSKPro a model axis touches: part features, neck, classifiers, all
losses of a face student with its teacher. In float64.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks.identities import largest_array
from configs import synthetic
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.methods import deskpro
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.lmbn import PARTS
from deskpro_jax.runtime import sharding
from deskpro_jax.train import optimisers
from deskpro_jax.train import step as train

FEATURES, ROWS, STEPS = 16, 16, 3
MESHES = ((1, 1), (1, 8), (4, 2))
OTHERS = ((1, 1), (1, 8), (2, 2), (8, 1))


class Heads(nn.Module):
    """Seven parts of the mean colour, with neck and classifier as LightMBN has them."""

    num_classes: int

    @nn.compact
    def __call__(self, images: Array, *, train: bool, valid: Array | None) -> dict[str, Array]:
        pooled = jnp.broadcast_to(images.mean((1, 2))[:, None, None], (len(PARTS), images.shape[0], 1, 1, 3))
        features = layers.Pointwise(FEATURES, (len(PARTS),), dtype="float64", name="reduction")(pooled)
        neck = layers.BatchNorm((len(PARTS),), frozen_bias=True, dtype="float64", name="neck")
        embeddings = neck(features, train=train, valid=valid)
        init = initialisers.normal(0.1)
        classifier = layers.Pointwise(
            self.num_classes, (len(PARTS),), dtype="float64", kernel_init=init, name="classifier"
        )
        outputs = {"logits": classifier(embeddings), "features": features, "embeddings": embeddings}
        return {name: value[:, :, 0, 0] for name, value in outputs.items()}


class Network(nn.Module):
    """A face stream, called as DeSKPro is."""

    num_classes: int
    remat: str = "none"
    image: str = "face"

    @nn.compact
    def __call__(self, inputs: Mapping[str, Array], *, train: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = inputs["valid"] & inputs["has_face"] if "valid" in inputs else None
        outputs = Heads(self.num_classes, name="face_stream")(inputs[self.image], train=train, valid=rows)
        return {"face": outputs}, {"face": {}}


def build(identities: int, data: int, model: int) -> tuple[Any, tuple[Any, ...]]:
    """Returns the jitted step on a mesh, and its arguments."""
    config = synthetic.get_config("face_fkp,debug")
    config.mesh.data, config.mesh.model = data, model
    config.loss.label_smoothing = 0.1
    mesh, network = sharding.make_mesh(config), Network(identities)
    teacher_network = network.clone(image="restored_face")
    optimizer = optimisers.adam(1e-3, config.train.weight_decay)

    def drawn(seed: int) -> Any:
        values = initialisers.draw(lambda key: network.init(key, {"face": jnp.zeros((1, 8, 8, 3))}), seed)
        return sharding.put_variables(mesh, jax.tree.map(lambda leaf: leaf.astype(np.float64), values))

    kept = sharding.placement(mesh, jax.eval_shape(lambda v: train.create_state(v, optimizer), drawn(0)))
    state = jax.jit(lambda v: train.create_state(v, optimizer), out_shardings=kept)(drawn(0))
    teacher, whole, rows = drawn(1), sharding.replicated(mesh), sharding.split_batch(mesh)
    step = jax.jit(
        train.make_train_step(network, optimizer, config, deskpro.recipe(config), teacher_network, mesh=mesh),
        in_shardings=(kept, sharding.placement(mesh, teacher), rows, whole),
        out_shardings=(kept, whole),
    )
    rng = np.random.default_rng(0)
    batch = {
        "face": rng.integers(0, 256, (ROWS, 8, 8, 3), np.uint8),
        "restored_face": rng.integers(0, 256, (ROWS, 8, 8, 3), np.uint8),
        "identity": np.repeat(rng.choice(identities, ROWS // 2, replace=False), 2).astype(np.int32),
        "valid": np.arange(ROWS) < ROWS - 2,
        "has_face": np.arange(ROWS) != 3,
    }
    return step, (state, teacher, sharding.put_batch(mesh, batch), jax.random.key(0))


def sums(state: train.TrainState) -> dict[str, list[float]]:
    """Returns two figures of every leaf that tell its values, and their order along the last axis, apart."""

    def figures(leaf: np.ndarray) -> list[float]:
        values = np.asarray(leaf, np.float64)
        weights = np.cos(np.arange(values.shape[-1])) if values.ndim else 1.0
        return [float(np.abs(values).sum()), float((values * weights).sum())]

    leaves = jax.tree_util.tree_leaves_with_path((state.params, state.batch_stats, state.opt_state))
    return {jax.tree_util.keystr(path): figures(jax.device_get(leaf)) for path, leaf in leaves}


def steps(identities: int, data: int, model: int) -> tuple[dict[str, Any], train.TrainState]:
    """Returns what three steps gave, and the state after them."""
    step, (state, *rest) = build(identities, data, model)
    program = step.lower(state, *rest).compile()
    losses = []
    for _ in range(STEPS):
        state, terms = program(state, *rest)
        losses.append({name: float(value) for name, value in terms.items()})
    first = jax.devices()[0]
    shards = [
        shard.data for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards if shard.device == first
    ]
    found = {
        "losses": losses,
        "sums": sums(state),
        "largest": int(np.prod(largest_array(program.as_text())[1])),
        "temporary": program.memory_analysis().temp_size_in_bytes,
        "kept": sum(shard.nbytes for shard in shards),
    }
    return found, state


def restored(folder: Path, state: train.TrainState, identities: int) -> dict[str, bool]:
    """Saves a state, and returns for each of the other meshes whether it came back bit for bit, in its place."""
    found = {}
    with CheckpointStore(folder, best_metric=None, asynchronous=False) as store:
        store.save(STEPS, {"state": state}, data={}, wait=True)
        for data, model in OTHERS:
            other = build(identities, data, model)[1][0]
            back = store.restore({"state": other})
            assert back is not None
            pairs = zip(*map(jax.tree.leaves, (back.state["state"], state, other)), strict=True)
            found[f"{data}x{model}"] = all(
                np.asarray(a).tobytes() == np.asarray(b).tobytes() and a.sharding == c.sharding for a, b, c in pairs
            )
    return found


def main() -> None:
    """Prints one JSON object."""
    jax.config.update("jax_enable_x64", True)
    found: dict[str, Any] = {"restored": {}}
    for identities in (800, 803):
        found[str(identities)] = {}
        for data, model in MESHES:
            name = f"{data}x{model}"
            found[str(identities)][name], state = steps(identities, data, model)
            if identities == 803 and model > 1:
                back = restored(Path(sys.argv[1]) / name, state, identities)
                found["restored"] |= {f"{name} on {other}": same for other, same in back.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
