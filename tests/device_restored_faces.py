"""Script of test_restoration.py: restores random faces on all devices and on one; prints how the results compare.

A small network whose weights are drawn here: the sizes of the published ones play no part in how a batch is split.
"""

from __future__ import annotations

import functools
import json

import jax
import numpy as np
from jax.sharding import Mesh

from data_prep.restoration.load import Restorer, template
from data_prep.restoration.model import Architecture
from data_prep.restoration.restore import restore
from deskpro_jax.runtime import sharding

ARCHITECTURE = Architecture((4, 6, 8), style_dim=12, mapping_layers=2)
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")


def main() -> None:
    """Prints the rows on each device, which collectives the program has, and the results' largest difference."""
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), template(ARCHITECTURE))
    restorer = Restorer(ARCHITECTURE.size, ARCHITECTURE, drawn, "")
    faces = rng.integers(0, 256, (16, restorer.size, restorer.size, 3), np.uint8)
    mesh = Mesh(np.asarray(jax.devices()), (sharding.DATA_AXIS,))
    variables = sharding.put_replicated(mesh, drawn)
    batch = sharding.put_batch(mesh, {"faces": faces})["faces"]
    program = jax.jit(functools.partial(restore, restorer)).lower(variables, batch).compile()
    found = program(variables, batch)
    alone = np.concatenate([restore_one(restorer, face[None]) for face in faces])
    result = {
        "rows": [len(shard.data) for shard in found.addressable_shards],
        "collectives": [name for name in COLLECTIVES if name in program.as_text()],
        "difference": int(np.abs(np.asarray(found).astype(int) - alone).max()),
        "differing": float((np.asarray(found) != alone).mean()),
        "spread": float(alone.std()),
    }
    print(json.dumps(result))


@functools.partial(jax.jit, static_argnums=0)
def restore_one(restorer: Restorer, faces: jax.Array) -> jax.Array:
    """Restores on one device."""
    return restore(restorer, restorer.variables, faces)


if __name__ == "__main__":
    main()
