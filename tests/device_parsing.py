"""Script of test_parsing.py: parses random crops on all devices and on one; prints how the results compare.

A narrow and shallow network: the sizes of the published one play no part in how a batch is split.
"""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_prep.parsing import backbone, model
from data_prep.parsing.load import Parser
from data_prep.parsing.model import SCHP
from data_prep.parsing.parse import parse_logits
from deskpro_jax.data.schema import PASCAL
from deskpro_jax.runtime import sharding

STACKED = 2  # blocks of a stage that are alike
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")


def main() -> None:
    """Prints rows by device, the program's collectives, the largest difference, the size and spread of the logits."""
    backbone.STEM = ((4, 2), (4, 1), (8, 1))
    backbone.LAYERS = {name: replace(layer, blocks=1 + STACKED, middle=4) for name, layer in backbone.LAYERS.items()}
    model.PYRAMID, model.EDGE, model.DECODER, model.DETAIL = 8, 4, 8, 4
    rng = np.random.default_rng(0)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(SCHP(len(PASCAL.labels)).init, jax.random.key(0), image)
    drawn = jax.tree.map(lambda leaf: draw(rng, leaf.shape), shapes)
    parser = Parser(PASCAL, 33, drawn, "")
    crops = rng.integers(0, 256, (16, parser.size, parser.size, 3), np.uint8)
    mesh = Mesh(np.asarray(jax.devices()), (sharding.DATA_AXIS,))
    variables = sharding.put_replicated(mesh, drawn)
    batch = sharding.put_batch(mesh, {"crops": crops})["crops"]
    parse = jax.jit(functools.partial(parse_logits, parser))
    program = parse.lower(variables, batch).compile()
    found = program(variables, batch)
    alone = np.concatenate([parse(drawn, crop[None]) for crop in crops])
    result = {
        "rows": [len(shard.data) for shard in found.addressable_shards],
        "collectives": [name for name in COLLECTIVES if name in program.as_text()],
        "difference": float(np.abs(np.asarray(found) - alone).max()),
        "largest": float(np.abs(alone).max()),
        "deviation": float(alone.std(0).mean()),
    }
    print(json.dumps(result))


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Returns weights that keep the size of what they are multiplied with, or a norm's values between 0.5 and 1.5."""
    if len(shape) == 1 or (len(shape) == 2 and shape[0] == STACKED):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[-4:-1]))).astype(np.float32)


if __name__ == "__main__":
    main()
