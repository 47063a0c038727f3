"""Golden cases of the three networks behind the training data, and the rule that fills their weights and inputs.

Cases come from tests/golden/data_prep, or from the folder data_prep inside the one that DESKPRO_GOLDEN names. A file's
`meta`, where it has one, may give other seeds than the usual ones.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

OWN = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("DESKPRO_GOLDEN") or OWN) / "data_prep"
WEIGHTS_SEED = 7
INPUT_SEED = 123
# How much larger than sqrt(1 / inputs) the weights are, by network and the end of the name; "" is all others.
GAINS = {
    "schp": {"": 1.0},
    "retinaface_r50": {"body.conv1.weight": 0.02, "": 1.0},
    "retinaface_mnet025": {"body.stage1.0.0.weight": 0.02, "": 1.25},
}
_BLUR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64.0
_UPSAMPLING = (".conv.blur.kernel", ".upsample.kernel")  # kernels that make up for the zeros in between


def available(name: str) -> Path:
    """Returns the path of a golden file; skips the test where there is none."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{FOLDER} holds no {name}")
    return path


def arrays(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays of a golden `.npz` and its `meta`, {} where it has none."""
    with np.load(available(name)) as data:
        found = {key: data[key] for key in data.files}
    meta = found.pop("meta", None)
    return found, {} if meta is None else json.loads(str(meta))


def manifest(name: str) -> list[tuple[str, tuple[int, ...]]]:
    """Returns names and shapes of a state dict in order; the usual ones where the folder has no such manifest."""
    path = FOLDER / name
    entries = json.loads((path if path.exists() else OWN / "data_prep" / name).read_text())
    return [(key, tuple(shape)) for key, shape in (entries.items() if isinstance(entries, dict) else entries)]


def fill(name: str, shape: tuple[int, ...], network: str, seed: int = WEIGHTS_SEED) -> np.ndarray:
    """Returns the float64 array that an entry of a state dict holds, in PyTorch's layout.

    Args:
        name: the entry, without `module.`.
        shape: its shape.
        network: "gpen" or a key of `GAINS`.
        seed: of the weights.
    """
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros((), np.int64)
    if network == "gpen":
        return _fill_gpen(name, shape, rng)
    if last == "running_mean":
        return 0.1 * rng.standard_normal(shape)
    if last == "running_var":
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) == 1:
        return 0.05 * rng.standard_normal(shape) if last == "bias" else rng.uniform(0.8, 1.2, shape)
    gain = next(value for end, value in GAINS[network].items() if name.endswith(end))
    return gain * rng.standard_normal(shape) * np.sqrt(1.0 / np.prod(shape[1:]))


def _fill_gpen(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name.endswith(".kernel"):
        return _BLUR * (4.0 if name.endswith(_UPSAMPLING) else 1.0)
    if name.endswith(".bias"):
        return (1.0 if name.endswith(".modulation.bias") else 0.0) + 0.05 * rng.standard_normal(shape)
    if name.endswith(".noise.weight"):
        return rng.uniform(0.8, 1.2, shape)
    return (100.0 if name.startswith("generator.style.") else 1.0) * rng.standard_normal(shape)


def state_dict(
    entries: Iterable[tuple[str, tuple[int, ...]]], network: str, seed: int = WEIGHTS_SEED
) -> dict[str, np.ndarray]:
    """Returns all tensors of a manifest, in float64."""
    return {name: fill(name, shape, network, seed) for name, shape in entries}


def image(height: int, width: int, seed: int = INPUT_SEED) -> np.ndarray:
    """Returns the float64 input [1, height, width, 3] in 0..1, before a network's normalisation, in its own order."""
    return np.random.default_rng(seed).random((1, 3, height, width)).transpose(0, 2, 3, 1)
