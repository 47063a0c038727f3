"""The rule that fills the reference weights and inputs of the golden files (see tests/golden/README.md)."""

from __future__ import annotations

import zlib

import numpy as np

# The reference registers each branch twice under one set of weights.
ALIASES = {"branches.0.": "global_branch.", "branches.1.": "part_branch.", "branches.2.": "channel_branch."}


def fill(name: str, shape: list[int], seed: int) -> np.ndarray:
    """Returns the float64 array that the state-dict entry `name` holds, in PyTorch's layout."""
    canonical = name
    for alias, target in ALIASES.items():
        canonical = canonical.replace(alias, target)
    rng = np.random.default_rng([zlib.crc32(canonical.encode()), seed])
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros((), np.int64)
    if last == "running_mean":
        return 0.1 * rng.standard_normal(tuple(shape))
    if last == "running_var":
        return rng.uniform(0.5, 1.5, tuple(shape))
    if len(shape) == 1:
        return 0.05 * rng.standard_normal(tuple(shape)) if last == "bias" else rng.uniform(0.8, 1.2, tuple(shape))
    return rng.standard_normal(tuple(shape)) * np.sqrt(1.0 / int(np.prod(shape[1:])))


def state_dict(manifest: dict[str, list[int]], seed: int, num_classes: int | None = None) -> dict[str, np.ndarray]:
    """Returns all tensors of a manifest; classifiers have `num_classes` rows where that is given."""
    tensors = {}
    for name, shape in manifest.items():
        sized = [num_classes, *shape[1:]] if num_classes and ".classifier." in f".{name}" else shape
        tensors[name] = fill(name, sized, seed)
    return tensors


def images(seed: int, shape: list[int]) -> np.ndarray:
    """Returns a float64 batch of normalised inputs, NHWC, from an NCHW `shape`."""
    return np.random.default_rng(seed).standard_normal(tuple(shape)).transpose(0, 2, 3, 1)


def masks(seed: int, shape: list[int]) -> np.ndarray:
    """Returns a float64 batch of 0/1 masks [batch, height, width], 0 where clothing is, in 8x8 blocks."""
    batch, _, height, width = shape
    rows, columns = -(-height // 8), -(-width // 8)
    blocks = np.random.default_rng(seed).random((batch, 1, rows, columns)) > 0.5
    return np.kron(blocks, np.ones((1, 1, 8, 8)))[:, 0, :height, :width].astype(np.float64)
