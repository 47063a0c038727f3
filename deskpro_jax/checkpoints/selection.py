"""Which checkpoint of a phase the results come from: the last, the best, or for each stream its own best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from deskpro_jax.checkpoints.metadata import latest_data
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.models.initialisers import variable_shapes
from deskpro_jax.runtime import sharding
from deskpro_jax.runtime.processes import any_process_each
from deskpro_jax.weights.table import is_finite

REPORTS = ("last", "validation", "stitched")
BEST_METRIC = "mAP"
STREAM_METRICS = {"face_stream": "face_mAP", "body_stream": "body_mAP"}
METRICS = (BEST_METRIC, *STREAM_METRICS.values())  # what a phase's CheckpointStore keeps the best of

Steps = int | dict[str, int]  # of a whole phase, or by stream ("face", "body")


def check_report(report: str) -> None:
    """Raises InputError when `eval.report` is none of `REPORTS`."""
    if report not in REPORTS:
        raise InputError(f"eval.report is {report!r}; expected one of {', '.join(REPORTS)}.")


def restore_reported(
    store: CheckpointStore, template: Mapping[str, Any], report: str = "last"
) -> tuple[Any, Steps] | None:
    """Restores parameters and statistics from the checkpoint that `report` asks for.

    Args:
        store: the phase's checkpoints, opened with `METRICS`.
        template: `params` and `batch_stats` of the streams to read, as `CheckpointStore.restore_subtree` takes them.
        report: "last"; "validation", the best `mAP`; or "stitched", each stream from the checkpoint with its own best
            mAP. Where nothing was scored, the last.

    Returns:
        The variables and their step, with "stitched" the step of each stream; None when there is no checkpoint.

    Raises:
        InputError: a parameter or statistic is not finite.
    """
    check_report(report)
    if report == "stitched" and set(template["params"]) <= set(STREAM_METRICS):
        stitched: dict[str, dict[str, Any]] = {collection: {} for collection in template}
        steps: dict[str, int] = {}
        for module in template["params"]:
            metric = STREAM_METRICS[module]
            part = {collection: {module: tree[module]} for collection, tree in template.items()}
            best = store.best_step(metric) is not None
            restored = store.restore_subtree(part, "best" if best else "latest", metric=metric)
            if restored is None:
                return None
            for collection, tree in restored.state.items():
                stitched[collection].update(tree)
            steps[module.removesuffix("_stream")] = restored.step
        refuse_not_finite(store.directory, steps, stitched)
        return stitched, steps
    best = report != "last" and store.best_step() is not None
    restored = store.restore_subtree(template, "best" if best else "latest")
    if restored is None:
        return None
    refuse_not_finite(store.directory, restored.step, restored.state)
    return restored.state, restored.step


def refuse_not_finite(folder: Path, steps: Steps, variables: Any) -> None:
    """Raises InputError, with the parameter's name, when restored variables hold NaN or infinity.

    Args:
        folder: of the checkpoints.
        steps: of the checkpoint or checkpoints.
        variables: tree of arrays, also ones that lie on several processes.
    """
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    wrong = any_process_each(np.array([not _is_finite(leaf) for _, leaf in leaves], bool))
    if wrong.any():
        names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
        first, count = names[int(np.argmax(wrong))], int(wrong.sum())
        more = f" and {count - 1} more parameters" if count > 1 else ""
        raise InputError(
            f"the checkpoint of step {steps} in {folder} holds NaN or infinity in {first}{more}: its training failed,"
            " or the file was changed; remove that step, or choose another checkpoint (eval.report, --report)."
        )


def _is_finite(leaf: Any) -> bool:
    shards = leaf.addressable_shards if isinstance(leaf, jax.Array) else ()
    arrays = [np.asarray(shard.data) for shard in shards if shard.replica_id == 0] if shards else [np.asarray(leaf)]
    return all(is_finite(array) for array in arrays)


def read_variables(
    folder: Path,
    module: nn.Module,
    mesh: Mesh,
    report: str = "last",
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[Any, Steps]:
    """Reads parameters and statistics of a trained phase.

    Args:
        folder: its `checkpoints` folder.
        module: the model that was trained.
        mesh: devices to put them on.
        report: which checkpoint, see `restore_reported`.
        sizes: height and width of the images of a batch by field, where shapes depend on them.

    Returns:
        Variables and their step or steps.

    Raises:
        MissingInputError: there is no checkpoint.
    """
    shapes = variable_shapes(module, sizes or {})
    template = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        sharding.placement(mesh, shapes),
    )
    with CheckpointStore(folder, best_metric=METRICS, read_only=True) as store:
        reported = restore_reported(store, template, report)
    if reported is None:
        raise MissingInputError(f"no checkpoint in {folder}: train first, or correct the path.")
    return reported


def skipped_images(folder: Path) -> dict[str, int]:
    """Returns the number of times that each training phase of a workdir skipped an unreadable image, by phase."""
    return {path.parent.name: int(latest_data(path).get("skipped", 0)) for path in sorted(folder.glob("*/checkpoints"))}
