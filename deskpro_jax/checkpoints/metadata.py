"""What a folder of checkpoints tells without restoring one: shapes, the data saved with them, what is damaged."""

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
    """Returns the tree of the saved states with shapes and types, from the newest checkpoint that can tell.

    Args:
      directory: the checkpoints of a phase.

    Returns:
      The tree, None where there is no checkpoint.

    Raises:
      RunError: there are checkpoints, and none can tell.
    """
    damages: dict[int, str] = {}
    for step in saved_steps(directory):
        folder = directory / str(step)
        # The arrays themselves may be large, and say nothing here.
        damage = checksums.find_damage(folder, lambda name: "/d/" not in name)
        tree = None if damage else templates.saved_shapes(folder)
        if tree is not None:
            return tree
        damages[step] = damage or "its metadata cannot be read"
    if damages:
        raise RunError(tell_damages(directory, damages))
    return None


def latest_data(directory: Path) -> dict[str, Any]:
    """Returns the `data` saved with the newest checkpoint that can tell, {} where none can."""
    for step in saved_steps(directory):
        folder = directory / str(step)
        if not checksums.find_damage(folder, lambda name: name.startswith("data/")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                return dict(json.loads((folder / "data" / "metadata").read_text("utf-8"))["data"])
    return {}


def tell_damages(directory: Path, damages: Mapping[int, str]) -> str:
    """Returns the message for when every checkpoint asked for is damaged.

    Args:
      directory: the checkpoints of a phase.
      damages: step -> what is wrong with it.
    """
    listed = "".join(f"\n  step {step}: {damage}" for step, damage in damages.items())
    others = sorted(step for step in saved_steps(directory) if step not in damages)
    advice = f"ask for another step ({others})" if others else "put a copy back, or remove the folder to start again"
    return f"no undamaged checkpoint among those asked for in {directory}:{listed}\n{advice}"
