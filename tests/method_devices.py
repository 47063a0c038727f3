"""Script of test_every_method_choices.py: a training step of methods on eight devices beside that on one, as JSON.

Arguments: names of variants. In float64, where only what is computed otherwise would differ. The step on eight devices
rematerialises the blocks as well; three of its eight rows are padding.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import numpy as np

from deskpro_jax.runtime import sharding
from test_every_method import Step

DEVICES = 8


def padded(inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a batch with a row for each device: the last one, which is padding, is repeated."""
    return {name: np.concatenate([array, *[array[-1:]] * (DEVICES - len(array))]) for name, array in inputs.items()}


def taken(variant: str, devices: int, remat: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Returns the terms of a step's loss, and the arrays after it: gradients, statistics and moments."""
    step = Step(variant, {"model.dtype": "float64", "train.remat": remat, "mesh.data": devices})
    mesh = sharding.make_mesh(step.config)
    whole, rows = sharding.replicated(mesh), sharding.split_batch(mesh)
    update = jax.jit(step.update, in_shardings=(whole, rows), out_shardings=whole)
    state, terms, gradients = update(step.state, sharding.put_batch(mesh, padded(step.inputs(0.5))))
    arrays = jax.tree_util.tree_leaves_with_path((gradients, state.batch_stats, state.opt_state))
    by_name = {jax.tree_util.keystr(path): np.asarray(leaf, np.float64) for path, leaf in arrays}
    return {name: float(value) for name, value in terms.items()}, by_name


def main() -> None:
    """Prints one JSON object: by variant the terms on one and on eight devices, and the array that differs most."""
    jax.config.update("jax_enable_x64", True)
    measured = {}
    for variant in sys.argv[1:]:
        (one, expected), (eight, arrays) = taken(variant, 1, "none"), taken(variant, DEVICES, "blocks")
        assert arrays.keys() == expected.keys()
        scales = {name: max(np.abs(array).max(initial=0), 1e-9) for name, array in expected.items()}
        gaps = {name: np.abs(array - expected[name]).max(initial=0) for name, array in arrays.items()}
        differences = {name: float(gap / scales[name]) for name, gap in gaps.items()}
        worst = max(differences, key=lambda name: differences[name])
        measured[variant] = {"one": one, "eight": eight, "worst": worst, "difference": differences[worst]}
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
