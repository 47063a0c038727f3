"""Networks as tensors in the reference's PyTorch names, and as safetensors files."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import deskpro_jax
from deskpro_jax.storage.files import write_files
from deskpro_jax.weights import table
from deskpro_jax.weights.card import Card, model_card
from deskpro_jax.weights.families import ALIASES, Stream
from deskpro_jax.weights.load import stream_entries, without_classifiers
from deskpro_jax.weights.table import Entry


def to_tensors(
    family: str,
    stream: Stream,
    os_streams: str,
    variables: Mapping[str, Any],
    step: int,
    left_out: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns one network as a PyTorch state dict that the reference loads with strict=True.

    Args:
        family: whose names: "osnet", "lmbn" or "deskpro".
        stream: from `describe`.
        os_streams: from `describe`.
        variables: `params` and `batch_stats`.
        step: training steps, from which `num_batches_tracked` follows (1 at least, so that "aacd" shows).
        left_out: what no variable holds, for weights that came from a file and were not trained since.

    Returns:
        Contiguous arrays by name: the network's own, the counters, for DeSKPro the second name of every branch, and
        for "aacd" the stream that never runs, as zeros.
    """
    tensors = table.dump(stream_entries(family, stream, os_streams), variables)
    never = {entry.name for entry in stream_entries(family, stream, "abcd")} - set(tensors)
    for name in never:
        twin = tensors[name.replace("conv2b.0.", "conv2a.").replace("conv2b.1.", "conv2a.")]
        one = name.endswith(("bn.weight", "running_var"))
        tensors[name] = np.full(twin.shape, float(one), twin.dtype)
    for name in [name for name in tensors if name.endswith("running_mean")]:
        twice = "shared.1." in name or (os_streams == "aacd" and ".conv2a." in name)
        ran = 0 if name in never else max(step, 1) * (2 if twice else 1)
        tensors[name.replace("running_mean", table.COUNTER)] = np.asarray(ran, np.int64)
    tensors |= {name: value for name, value in left_out.items() if name.startswith(stream.prefix)}
    if family == "deskpro":
        for alias, target in ALIASES.items():
            start = stream.prefix + target
            tensors |= {
                f"{stream.prefix}{alias}{name.removeprefix(start)}": value
                for name, value in tensors.items()
                if name.startswith(start)
            }
    return {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in tensors.items()}


def compacted(tensors: Mapping[str, np.ndarray], entries: Iterable[Entry]) -> dict[str, np.ndarray]:
    """Returns only what an embedding depends on: no classifiers, counters or second names, kernels in float16.

    Args:
        tensors: a network as a state dict.
        entries: its name table.

    Returns:
        Tensors by name. BatchNorms stay in float32, and kernels with numbers beyond the range of float16.
    """
    needed = {entry.name for entry in without_classifiers(entries)}
    return {name: to_float16(value) for name, value in tensors.items() if name in needed}


def to_float16(tensor: np.ndarray) -> np.ndarray:
    """Returns a kernel in float16; other tensors, and kernels with numbers beyond its range, stay as they are."""
    if tensor.ndim < 2:
        return tensor
    with np.errstate(over="ignore"):
        half = tensor.astype(np.float16)
    return half if np.isfinite(half).all() else tensor


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], card: Card) -> Path:
    """Writes a safetensors file and its model card beside it, each whole or not at all.

    Args:
        path: the file, ending in .safetensors.
        tensors: contiguous arrays by name.
        metadata: text kept in the file's header.
        card: what the model card says, beside the size and checksum of the file.

    Returns:
        The path of the card.
    """
    card_path = path.with_suffix(".md")
    content = safetensors.numpy.save(dict(tensors), metadata=dict(metadata))
    text = model_card(path, card, len(content), hashlib.sha256(content).hexdigest())
    write_files({card_path: text.encode(), path: content})
    return card_path


def file_class_order(metadata: Mapping[str, str]) -> str:
    """Returns how a file's classifiers count identities; a file without this package's note is a released one."""
    return metadata.get("class_order", "text")


def versions() -> dict[str, str]:
    """Returns the versions of the packages that read and write weights."""
    packages = ("jax", "flax", "orbax-checkpoint", "safetensors")
    return {"deskpro_jax": deskpro_jax.__version__} | {name: importlib.metadata.version(name) for name in packages}
