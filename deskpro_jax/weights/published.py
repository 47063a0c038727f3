"""Name tables of the networks that a method describes by its `PublishedNames`: from parameters to names in a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deskpro_jax.models.contract import PublishedNames
from deskpro_jax.weights.table import Entry, flatten

# Leaves of flax layers as PyTorch calls them; any other leaf keeps its name.
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def entries(names: PublishedNames, variables: Mapping[str, Any]) -> tuple[list[Entry], list[Entry]]:
    """Returns the name table of a network.

    Args:
        names: how the file names its tensors.
        variables: of the network, arrays or shapes, by collection ("params", "batch_stats").

    Returns:
        The entries of the tensors in the file; and those of parameters that the file has nothing for, under their own
        dotted paths.
    """
    there: list[Entry] = []
    absent: list[Entry] = []
    for collection, tree in variables.items():
        for path, leaf in flatten(tree):
            own = ".".join((*path[:-1], _LEAVES.get(path[-1], path[-1])))
            name = own
            for pattern, replacement in names.rename:
                name = re.sub(pattern, replacement, name)
            entry = Entry(name or own, collection, path, (), _kind(names, name or own, path[-1], len(leaf.shape)))
            (there if name else absent).append(entry)
    return there, absent


def _kind(names: PublishedNames, name: str, leaf: str, axes: int) -> str | tuple[int, ...]:
    """Returns the order of a tensor's axes, as `Entry.kind`."""
    for pattern, order in names.axes:
        if re.fullmatch(pattern, name):
            return order
    if leaf != "kernel":
        return "same"
    if axes == 2:
        return "linear" if re.fullmatch(names.linear, name) else "pointwise"
    return "depthwise" if axes == 3 else "conv"
