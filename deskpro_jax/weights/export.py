"""Trained networks as safetensors in the reference's PyTorch names, with a model card."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy

import deskpro_jax
from deskpro_jax import workdir
from deskpro_jax.checkpoint import CheckpointStore
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.models.osnet import BACKBONES
from deskpro_jax.weights import table
from deskpro_jax.weights.card import model_card
from deskpro_jax.weights.deskpro import STREAMS as PREFIXES
from deskpro_jax.weights.families import ALIASES, COUNTER, Stream
from deskpro_jax.weights.load import stream_entries
from deskpro_jax.weights.read import read_file

RECORD = "conversion.json"
PREPROCESSING = "preprocessing"  # key of what is known of how images go in, in a file's metadata and in RECORD
LEFT_OUT = "left_out.safetensors"  # what no variable holds, so that the way back is exact
# Where each network goes: the phase's folder, and the name of the stream within its model ("": it is the model).
PLACES = {
    "teacher": ("teacher", "face_stream"),
    "student": ("student", "face_stream"),
    "body": ("student", "body_stream"),
    "osnet": ("osnet", ""),
}


def describe(role: str, variables: Mapping[str, Any], family: str) -> tuple[Stream, str]:
    """Returns what a network is, from the shapes of its variables, and the OSBlock streams it runs.

    Args:
        role: "body", "student", "teacher" or "osnet".
        variables: `params` and `batch_stats` of one stream (or of an OSNet).
        family: whose names it will have.
    """
    params = variables["params"]
    trunk = params["trunk"]
    width, norm = int(trunk["stem"]["kernel"].shape[-1]), "instance_norm" in trunk["block2_0"]
    backbone = next((n for n, b in BACKBONES.items() if (b.channels[0], b.instance_norm) == (width, norm)), None)
    if backbone is None:
        raise InputError(f"the {role} network starts with {width} channels, which no OSNet does.")
    running = trunk["block2_0"]["stage0"]["pointwise"]["kernel"].shape[0]
    attention = "none"
    if "attention" in params:
        attention = "released" if "conv1" in params["attention"] else "paper"
    classes = params["classifier"]["kernel"].shape[-1] if "classifier" in params else None
    features = params["fc_norm" if role == "osnet" else "neck"]["scale"].shape[-1]
    prefix = PREFIXES[role] if family == "deskpro" else ""
    stream = Stream(role, prefix, backbone, attention, int(features), None if classes is None else int(classes))
    return stream, "abcd" if running == 4 else "aacd"


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
        tensors[name.replace("running_mean", COUNTER)] = np.asarray(ran, np.int64)
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
    temporary = [p.with_name(f".{p.name}.{os.getpid()}") for p in (path, card_path)]
    try:
        temporary[0].write_bytes(safetensors.numpy.save(dict(tensors), metadata=dict(metadata)))
        temporary[1].write_text(card, encoding="utf-8")
        for part, final in zip(temporary, (path, card_path), strict=True):
            part.replace(final)
    finally:
        for part in temporary:
            part.unlink(missing_ok=True)
    return card_path


def export_weights(folder: Path, target: Path, *, family: str | None = None, report: str = "last") -> dict[str, int]:
    """Writes the networks of a workdir as one safetensors file in the reference's names, and a model card beside it.

    Args:
        folder: a workdir of training, or one that `import_weights` wrote.
        target: a new file ending in .safetensors; the card has the same name ending in .md.
        family: whose names, "deskpro" or "lmbn" (a lone body network); None for the family it came from, or DeSKPro.
        report: the "last" checkpoint, or "validation" for the one with the best validation score.

    Returns:
        The step of each phase.

    Raises:
        InputError: `target` is there, or the networks have no names in that family.
        MissingInputError: `folder` holds no checkpoints.
    """
    if target.exists() or target.with_suffix(".md").exists():
        raise InputError(f"{target} or its card is there already: give a new name.")
    if not target.parent.is_dir():
        raise MissingInputError(f"no folder {target.parent}: make it, or correct --to.")
    origin, config, results = (_read_json(folder / n) for n in (RECORD, workdir.CONFIG_FILE, workdir.RESULTS_FILE))
    networks: dict[str, Any] = {}
    steps: dict[str, int] = {}
    for phase in dict.fromkeys(phase for phase, _ in PLACES.values()):
        if not (folder / phase / "checkpoints").is_dir():
            continue
        state, steps[phase] = read_phase(folder / phase / "checkpoints", report)
        for role, (place, module) in PLACES.items():
            if place == phase and (not module or module in state["params"]):
                networks[role] = {name: tree[module] if module else tree for name, tree in state.items()}
    if not networks:
        raise MissingInputError(f"no checkpoints in {folder}: expected a workdir with student/ or teacher/.")
    family = family or (origin or {}).get("family") or "deskpro"
    if ("osnet" in networks) != (family == "osnet") or (family == "lmbn" and len(networks) > 1):
        raise InputError(f"{folder} holds {', '.join(networks)}, which have no names in the family {family}.")
    untouched = not any(steps.values()) and family == (origin or {}).get("family") and (folder / LEFT_OUT).exists()
    left_out = read_file(folder / LEFT_OUT).tensors if untouched else {}
    tensors: dict[str, np.ndarray] = {}
    streams: dict[str, Stream] = {}
    for role, variables in networks.items():
        streams[role], os_streams = describe(role, variables, family)
        tensors |= to_tensors(family, streams[role], os_streams, variables, steps[PLACES[role][0]], left_out)
    metadata = {
        "format": "pt",
        "family": family,
        "os_streams": os_streams,
        "written_by": f"deskpro_jax {deskpro_jax.__version__}",
    }
    if known := _preprocessing(config, origin):
        metadata[PREPROCESSING] = json.dumps(known)
    card = model_card(
        target, streams, os_streams, steps, config=config, results=results, origin=origin, versions=versions()
    )
    write(target, tensors, metadata, card)
    return steps


def _preprocessing(config: Mapping[str, Any] | None, origin: Mapping[str, Any] | None) -> Any:
    """Returns the sizes that images are brought to and whether mirrored ones are added, None where nobody knows."""
    if config is None:
        return (origin or {}).get(PREPROCESSING)
    return {name: config["data"][name] for name in ("body_size", "face_size")} | {"flip": config["eval"]["flip"]}


def _read_json(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): restore it, or move it away.") from error


def read_phase(folder: Path, report: str) -> tuple[dict[str, Any], int]:
    """Reads parameters and statistics of a phase with the shapes that the checkpoint itself names.

    Args:
        folder: its `checkpoints` folder.
        report: "last", or "validation" for the best checkpoint.

    Returns:
        `{"params": ..., "batch_stats": ...}` on the host, and the step.

    Raises:
        MissingInputError: there is no checkpoint.
    """
    with CheckpointStore(folder, best_metric="mAP", read_only=True) as store:
        best = report == "validation" and store.best_step() is not None
        step = store.best_step() if best else store.latest_step()
        if step is None:
            raise MissingInputError(f"no checkpoint in {folder}: train first, or correct the path.")
        metadata = ocp.PyTreeCheckpointHandler().metadata(folder.absolute() / str(step) / "state")
        tree = getattr(metadata, "tree", metadata)
        template = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
            {name: tree[name] for name in ("params", "batch_stats")},
        )
        restored = store.restore_subtree(template, "best" if best else "latest")
    if restored is None:
        raise MissingInputError(f"no checkpoint in {folder}: train first, or correct the path.")
    return jax.tree.map(jax.device_get, restored.state), restored.step


def versions() -> dict[str, str]:
    """Returns the versions of the packages that read and write weights."""
    packages = ("jax", "flax", "orbax-checkpoint", "safetensors")
    return {"deskpro_jax": deskpro_jax.__version__} | {name: importlib.metadata.version(name) for name in packages}
