"""Script of test_sharded.py: prints the losses of ten student steps on several meshes as JSON.

Arguments: the folder with the tiny dataset, then the number of devices of each mesh. In float64 and at the rate of the
first warm-up epoch, because training multiplies rounding about tenfold a step: in float32 the order of a sum shows in
the second digit after three steps, which would hide a row that counts twice.
"""

from __future__ import annotations

import json
import sys

import jax
import numpy as np

from configs import synthetic
from deskpro_jax import optim, sharding, train
from deskpro_jax.data import dataset, pipeline
from deskpro_jax.models import deskpro

STEPS = 10
RATE = 4e-5


def losses(data_dir: str, devices: int) -> list[dict[str, float]]:
    """Returns the loss terms of each step, augmentation included."""
    config = synthetic.get_config("debug")
    config.mesh.data = devices
    config.model.dtype = "float64"
    config.augment.erase = 0.5
    split = dataset.load(config.data.name, data_dir, "train")
    classes = len(dataset.train_classes(split))
    student, teacher = deskpro.student_model(config.model, classes), deskpro.teacher_model(config.model, classes)
    mesh = sharding.make_mesh(config)
    whole, rows = sharding.replicated(mesh), sharding.split_batch(mesh)
    optimizer = optim.adam(RATE, config.train.weight_decay)
    variables, fixed = (
        sharding.put_replicated(
            mesh, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), deskpro.init_variables(module, seed))
        )
        for module, seed in ((student, 0), (teacher, 1))
    )
    step = jax.jit(
        train.make_train_step(student, optimizer, config, "student", teacher),
        in_shardings=(whole, whole, rows, whole),
        out_shardings=whole,
    )
    state = jax.jit(lambda v: train.create_state(v, optimizer), out_shardings=whole)(variables)
    batches = pipeline.train_batches(split, config, seed=3, phase="student", pad_to_multiple=devices)
    found = []
    for _ in range(STEPS):
        state, terms = step(state, fixed, sharding.put_batch(mesh, next(batches)), jax.random.key(5))
        found.append({name: float(value) for name, value in terms.items()})
    batches.close()
    return found


def main() -> None:
    """Prints one JSON list, an item for each mesh."""
    jax.config.update("jax_enable_x64", True)
    print(json.dumps([losses(sys.argv[1], int(devices)) for devices in sys.argv[2:]]))


if __name__ == "__main__":
    main()
