"""What is known of a folder of checkpoints without restoring one: shapes, the data saved with them, damages."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deskpro_jax.checkpoints import templates
from deskpro_jax.errors import RunError
from deskpro_jax.storage import checksums

PyTree = Any


def saved_steps(directory: Path) -> list[int]:
    """Returns the steps in a folder of checkpoints, the newest first, unchecked for damage."""
    return sorted((int(path.name) for path in directory.glob("[0-9]*") if path.name.isdigit()), reverse=True)


def saved_tree(directory: Path) -> PyTree | None:
    """Returns the tree of the saved states with shapes and types, from the newest checkpoint that is readable.

    Args:
        directory: the checkpoints of a phase.

    Returns:
        The tree, None where there is no checkpoint.

    Raises:
        RunError: there are checkpoints, and none is readable.
    """
    damages: dict[int, str] = {}
    for step in saved_steps(directory):
        folder = directory / str(step)
        # The arrays themselves may be large, and are not needed here.
        damage = checksums.find_damage(folder, lambda name: "/d/" not in name)
        tree = None if damage else templates.saved_shapes(folder)
        if tree is not None:
            return tree
        damages[step] = damage or "its metadata cannot be read"
    if damages:
        raise RunError(damages_message(directory, damages))
    return None


def saved_record(folder: Path) -> dict[str, Any] | None:
    """Returns the JSON record of a step (`step`, `data`), None where it is damaged."""
    if not checksums.find_damage(folder, lambda name: name.startswith("data/")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            return dict(json.loads((folder / "data" / "metadata").read_text("utf-8")))
    return None


def latest_data(directory: Path) -> dict[str, Any]:
    """Returns the `data` saved with the newest checkpoint whose record is readable, otherwise {}."""
    records = (saved_record(directory / str(step)) for step in saved_steps(directory))
    return next((dict(record["data"]) for record in records if record and "data" in record), {})


def damages_message(directory: Path, damages: Mapping[int, str]) -> str:
    """Returns the message for when every checkpoint asked for is damaged.

    Args:
        directory: the checkpoints of a phase.
        damages: step -> what is wrong with it.
    """
    listed = "".join(f"\n  step {step}: {damage}" for step, damage in damages.items())
    others = sorted(step for step in saved_steps(directory) if step not in damages)
    advice = f"ask for another step ({others})" if others else "put a copy back, or remove the folder to start again"
    return f"no undamaged checkpoint among those asked for in {directory}:{listed}\n{advice}"
