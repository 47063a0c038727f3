"""Trained networks as safetensors in the reference's PyTorch names, with a model card."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import deskpro_jax
from deskpro_jax.checkpoints.selection import Steps
from deskpro_jax.errors import InputError
from deskpro_jax.storage.files import check_new, write_files
from deskpro_jax.weights import table
from deskpro_jax.weights.card import model_card
from deskpro_jax.weights.families import ALIASES, Stream
from deskpro_jax.weights.load import stream_entries
from deskpro_jax.weights.read import read_file
from deskpro_jax.workdir.stored import LEFT_OUT, PREPROCESSING, describe, read_networks


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


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], card: str) -> Path:
    """Writes a safetensors file and its model card beside it, each whole or not at all.

    Args:
        path: the file, ending in .safetensors.
        tensors: contiguous arrays by name.
        metadata: text kept in the file's header.
        card: Markdown.

    Returns:
        The path of the card.
    """
    card_path = path.with_suffix(".md")
    content = safetensors.numpy.save(dict(tensors), metadata=dict(metadata))
    write_files({card_path: card.encode(), path: content})
    return card_path


def file_class_order(metadata: Mapping[str, str]) -> str:
    """Returns how a file's classifiers count identities; a file without this package's note is a released one."""
    return metadata.get("class_order", "text")


def export_weights(folder: Path, target: Path, *, family: str | None = None, report: str = "last") -> dict[str, Steps]:
    """Writes the networks of a workdir as one safetensors file in the reference's names, and a model card beside it.

    Args:
        folder: a workdir of training, or one that `import_weights` wrote.
        target: a new file ending in .safetensors; the card has the same name ending in .md.
        family: whose names, "deskpro" or "lmbn" (a lone body network); None for the family it came from, or DeSKPro.
        report: which checkpoint, as `eval.report`.

    Returns:
        The step or steps of each phase.

    Raises:
        InputError: `target` is there, or the networks have no names in that family.
        MissingInputError: `folder` holds no checkpoints.
    """
    check_new(target, target.with_suffix(".md"))
    held = read_networks(folder, report)
    family = family or held.family
    if ("osnet" in held.variables) != (family == "osnet") or (family == "lmbn" and len(held.variables) > 1):
        raise InputError(f"{folder} holds {', '.join(held.variables)}, which have no names in the family {family}.")
    converted = family == (held.origin or {}).get("family") and (folder / LEFT_OUT).exists()
    untouched = converted and not any(held.step(role) for role in held.variables)
    left_out = read_file(folder / LEFT_OUT).tensors if untouched else {}
    tensors: dict[str, np.ndarray] = {}
    streams: dict[str, Stream] = {}
    for role, variables in held.variables.items():
        streams[role], os_streams = describe(role, variables, family)
        tensors |= to_tensors(family, streams[role], os_streams, variables, held.step(role), left_out)
    metadata = {
        "format": "pt",
        "family": family,
        "os_streams": os_streams,
        "class_order": held.class_order,
        "written_by": f"deskpro_jax {deskpro_jax.__version__}",
    }
    if known := _preprocessing(held.config, held.origin):
        metadata[PREPROCESSING] = json.dumps(known)
    write(target, tensors, metadata, model_card(target, streams, os_streams, held, versions()))
    return held.steps


def _preprocessing(config: Mapping[str, Any] | None, origin: Mapping[str, Any] | None) -> Any:
    """Returns how images go in and how those without a face are compared, None where nobody knows."""
    if config is None:
        return (origin or {}).get(PREPROCESSING)
    sizes = {name: config["data"][name] for name in ("body_size", "face_size")}
    return sizes | {name: config["eval"][name] for name in ("flip", "missing_face") if name in config["eval"]}


def versions() -> dict[str, str]:
    """Returns the versions of the packages that read and write weights."""
    packages = ("jax", "flax", "orbax-checkpoint", "safetensors")
    return {"deskpro_jax": deskpro_jax.__version__} | {name: importlib.metadata.version(name) for name in packages}
