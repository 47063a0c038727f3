"""How the golden cases of each published method are run: one module a method, with `run(name, case)`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import golden_rule
from deskpro_jax.models.contract import PublishedNames
from deskpro_jax.weights import published, table


@dataclass(frozen=True)
class Golden:
    """The file of a method, and the names and shapes of its reference networks."""

    path: Path

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """Returns every stored array by name."""
        with np.load(self.path) as data:
            return {name: data[name] for name in data.files if name != "meta"}

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Returns what is needed to rebuild the cases."""
        with np.load(self.path) as data:
            return dict(json.loads(str(data["meta"])))

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Returns the names and shapes of the reference's tensors; by variant where there are several."""
        return dict(json.loads(self.path.with_name(f"{self.path.stem}_manifest.json").read_text()))

    def case(self, name: str) -> dict[str, np.ndarray]:
        """Returns the arrays of a case, by the rest of their name."""
        return {key.removeprefix(f"{name}/"): array for key, array in self.arrays.items() if key.startswith(f"{name}/")}

    @property
    def cases(self) -> list[str]:
        """Returns the names of all cases."""
        return list(dict.fromkeys(key.split("/")[0] for key in self.arrays))


def tensors(shapes: Mapping[str, Any], seed: int, gains: Mapping[str, float] | None = None) -> dict[str, np.ndarray]:
    """Returns a reference network's tensors, float64; `gains` multiplies those of these names."""
    gains = gains or {}
    return {name: golden_rule.fill(name, shape, seed) * gains.get(name, 1) for name, shape in shapes.items()}


def variables(names: PublishedNames, state_dict: Mapping[str, np.ndarray], module: Any, images: Any) -> dict[str, Any]:
    """Returns a network's variables with the tensors of a reference in their place, in the type of the tensors.

    Args:
        names: how the tensors are named.
        state_dict: all tensors of the reference; those left over must be counters or match `names.ignored`.
        module: the network.
        images: what it is applied to.
    """
    from flax.core import meta as flax_meta

    shapes = flax_meta.unbox(jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images))
    entries, absent = published.entries(names, shapes)
    assert not absent, f"the file has nothing for {absent[0].name}"
    left = set(state_dict) - {entry.name for entry in entries}
    unknown = [name for name in left if not name.endswith(table.COUNTER) and not names.ignores(name)]
    assert not unknown, f"no place for {unknown}"
    return table.load(entries, state_dict, shapes)


def published_tensors(names: PublishedNames, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns arrays of the structure of a network's variables (gradients, say) under their published names."""
    return table.dump(published.entries(names, tree)[0], tree)


def worst(actual: Any, expected: np.ndarray) -> float:
    """Returns the largest difference as a fraction of the largest expected value."""
    difference = np.abs(np.asarray(actual, np.float64) - expected).max()
    return float(difference / np.abs(expected).max())


def cast(tree: Any, dtype: Any) -> Any:
    """Returns a tree with every array in `dtype`."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)
