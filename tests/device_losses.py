"""Script of test_sharded.py: prints the losses of ten student steps on several meshes as JSON.

Arguments: the folder with the tiny dataset, then each mesh as DATAxMODEL. In float64 and at the rate of the first
warm-up epoch, because training multiplies rounding about tenfold a step: in float32 the order of a sum shows in the
second digit after three steps, which would hide a row that counts twice.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from configs import synthetic
from deskpro_jax.data.load import dataset, pipeline
from deskpro_jax.methods import deskpro
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import Counts
from deskpro_jax.runtime import sharding
from deskpro_jax.train import optimisers
from deskpro_jax.train import step as train
from small_backbones import SHORT

STEPS = 10
RATE = 4e-5


def _config() -> Any:
    config = synthetic.get_config("debug")
    config.model.backbone, config.model.dtype = SHORT, "float64"
    config.augment.erase = 0.5
    return config


@functools.cache
def _optimizer() -> Any:
    return optimisers.adam(RATE, _config().train.weight_decay)


@functools.cache
def _step(student: Any, teacher: Any, mesh: Any) -> Callable[..., Any]:
    return train.make_train_step(student, _optimizer(), _config(), deskpro.recipe(_config()), teacher, mesh=mesh)


def losses(data_dir: str, data: int, model: int) -> list[dict[str, float]]:
    """Returns the loss terms of each step, augmentation included."""
    config = _config()
    config.mesh.data, config.mesh.model = data, model
    split = dataset.load(config.data.name, data_dir, "train")
    classes = len(dataset.train_classes(split))
    student, teacher = deskpro.build(config, Counts(classes)), deskpro.build_teacher(config, Counts(classes))
    mesh = sharding.make_mesh(config)
    whole, rows = sharding.replicated(mesh), sharding.split_batch(mesh)
    optimizer = _optimizer()
    variables, fixed = (
        sharding.put_variables(
            mesh, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), initialisers.init_variables(module, seed))
        )
        for module, seed in ((student, 0), (teacher, 1))
    )
    kept = sharding.placement(mesh, jax.eval_shape(lambda v: train.create_state(v, optimizer), variables))
    step = jax.jit(
        _step(student, teacher, mesh if model > 1 else None),  # meshes without a model axis share what is traced
        in_shardings=(kept, sharding.placement(mesh, fixed), rows, whole),
        out_shardings=(kept, whole),
    )
    state = jax.jit(lambda v: train.create_state(v, optimizer), out_shardings=kept)(variables)
    batches = pipeline.train_batches(split, config, seed=3, phase="student", pad_to_multiple=mesh.size)
    found = []
    for _ in range(STEPS):
        state, terms = step(state, fixed, sharding.put_batch(mesh, next(batches)), jax.random.key(5))
        found.append({name: float(value) for name, value in terms.items()})
    batches.close()
    return found


def main() -> None:
    """Prints one JSON list, an item for each mesh."""
    jax.config.update("jax_enable_x64", True)
    meshes = [map(int, mesh.split("x")) for mesh in sys.argv[2:]]
    print(json.dumps([losses(sys.argv[1], *mesh) for mesh in meshes]))


if __name__ == "__main__":
    main()
