"""Checkpoints of the student phase: seconds to save and to restore, and bytes on disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import stream
from benchmarks.races import OURS, Entrant, Race, Settings
from benchmarks.stream import Shape


def races(settings: Settings) -> list[Race]:
    """Returns the one race, of our entrant alone."""
    arguments = {"scratch": str(settings.scratch), "shape": stream.chosen(settings.quick)}
    return [Race("student state", (Entrant(OURS, "benchmarks.checkpoint:save", arguments),), settings.rounds(5))]


def save(scratch: str, shape: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Saves and restores parameters, statistics and Adam's moments of body and face stream; an entrant."""
    import jax
    import numpy as np

    from benchmarks.train import FACE, configuration
    from deskpro_jax.checkpoints.store import CheckpointStore
    from deskpro_jax.methods import deskpro
    from deskpro_jax.models.contract import Counts
    from deskpro_jax.models.initialisers import init_variables
    from deskpro_jax.train import optimisers, schedules, step

    sizes = Shape(**shape)
    config = configuration("student", sizes, FACE, 8, "float32")
    optimizer = optimisers.adam(schedules.schedule(np.asarray([1e-4]), 1), config.train.weight_decay)
    create = jax.jit(lambda variables: step.create_state(variables, optimizer))
    state = create(init_variables(deskpro.build(config, Counts(sizes.classes)), 0))
    tree = {
        "step": state.step,
        "params": state.params,
        "batch_stats": state.batch_stats,
        "opt_state": state.opt_state,
    }
    jax.block_until_ready(tree)
    yield {}
    folder = Path(scratch) / "checkpoints"
    while True:
        with CheckpointStore(folder, best_metric=None, asynchronous=True) as store:
            start = time.perf_counter()
            store.save(1, tree, data={})
            returned = time.perf_counter()
            store.wait()
            saved = time.perf_counter()
            restored = store.restore(tree)
            assert restored is not None  # it was saved just now
            jax.block_until_ready(restored.state)
            ended = time.perf_counter()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder)
        yield {"until returned": returned - start, "time": saved - start, "restore": ended - saved, "size": size}
