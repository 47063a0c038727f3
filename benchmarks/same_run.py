"""Whether two workdirs hold the same run: arrays bit for bit, metric lines, results, and nothing left behind."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deskpro_jax.checkpoints.scores import SCORES_FILE
from deskpro_jax.checkpoints.selection import METRICS
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.storage import files
from deskpro_jax.train.metrics_file import METRICS_FILE
from deskpro_jax.workdir import layout

PHASES = ("teacher", "student")


def lines(phase: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a phase's `metrics.jsonl`, without their times."""
    try:
        text = (phase / METRICS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    records = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [{name: value for name, value in record.items() if name != "time"} for record in records]


def progress(folder: Path) -> int:
    """Returns how many steps of both phases together are in the metrics of a workdir."""
    return sum(max((line["step"] for line in lines(folder / phase)), default=0) for phase in PHASES)


def _as_saved(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def saved(phase: Path) -> dict[int, dict[str, np.ndarray]]:
    """Returns every array of every checkpoint of a phase, by step and path."""
    found = {}
    with CheckpointStore(phase / "checkpoints", best_metric=METRICS, read_only=True) as store:
        for step in store.steps():
            restored = store.restore(_as_saved, step)
            assert restored is not None
            leaves = jax.tree_util.tree_leaves_with_path(restored.state)
            found[step] = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return found


def compare(folder: Path, expected: Path) -> tuple[list[str], dict[str, int]]:
    """Compares two finished workdirs: arrays bit for bit, metric lines, results, and what should not be there.

    Args:
        folder: of the disturbed run.
        expected: of the undisturbed one.

    Returns:
        What differs, and how much was compared.
    """
    differences: list[str] = []
    counts: Counter[str] = Counter()
    for phase in (name for name in PHASES if (expected / name).is_dir()):
        found_lines, expected_lines = lines(folder / phase), lines(expected / phase)
        counts["metric lines"] += len(expected_lines)
        if found_lines != expected_lines:
            differences.append(f"{phase}: {METRICS_FILE} differs ({len(found_lines)}, {len(expected_lines)} lines)")
        found, wanted = saved(folder / phase), saved(expected / phase)
        if max(found) != max(wanted):
            differences.append(f"{phase}: ends at step {max(found)} instead of {max(wanted)}")
        for step in sorted(set(found) & set(wanted)):
            counts["checkpoints"] += 1
            counts["arrays"] += len(wanted[step])
            unequal = [
                name
                for name in sorted(wanted[step].keys() | found[step].keys())
                if name not in found[step]
                or name not in wanted[step]
                or found[step][name].dtype != wanted[step][name].dtype
                or found[step][name].tobytes() != wanted[step][name].tobytes()
            ]
            if unequal:
                differences.append(f"{phase}: {len(unequal)} arrays of step {step} differ, as {unequal[0]}")
        scores = [files.read_json(place / phase / SCORES_FILE) for place in (folder, expected)]
        if scores[0] != scores[1]:
            differences.append(f"{phase}: {SCORES_FILE} differs")
    results = [(files.read_json(place / layout.RESULTS_FILE) or {}).get("results") for place in (folder, expected)]
    if results[0] != results[1]:
        differences.append(f"{layout.RESULTS_FILE} differs")
    left = [str(path.relative_to(folder)) for path in folder.glob("*/checkpoints/*") if not path.name.isdigit()]
    left += [str(path.relative_to(folder)) for path in folder.rglob(".*.json*") if path.is_file()]
    if left:
        differences.append(f"left behind: {', '.join(sorted(left))}")
    return differences, dict(counts)
