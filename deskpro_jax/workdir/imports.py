"""Weights files into workdirs: every network of a file as a checkpoint, step 0, with a record of where it came from."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import InputError
from deskpro_jax.storage import files
from deskpro_jax.weights.export import file_class_order, versions
from deskpro_jax.weights.load import Loaded
from deskpro_jax.workdir.opening import Opened, open_networks
from deskpro_jax.workdir.stored import LEFT_OUT, PLACES, PREPROCESSING, RECORD


def import_weights(
    source: Path,
    folder: Path,
    *,
    family: str | None = None,
    role: str | None = None,
    os_streams: str | None = None,
    attention: str | None = None,
    identities: int | None = None,
    dont_load: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the networks of a weights file as checkpoints of a workdir, step 0.

    Args:
        source: a PyTorch or safetensors file of a known family.
        folder: new or empty; gets `student/` (face student, body), `teacher/` or `osnet/` with their `checkpoints/`,
            `conversion.json`, and `left_out.safetensors` with the tensors that no variable holds. On failure nothing.
        family: what the file must be; None takes what its names say.
        role: what a network is whose names do not say so: "body" (also the default for LightMBN), "student", "teacher".
        os_streams: OSBlock streams; None for those the file was trained with.
        attention: form of CSA that the body network must have.
        identities: of new classifiers; None keeps the file's.
        dont_load: regular expressions for names of tensors to leave out.

    Returns:
        The content of `conversion.json`.

    Raises:
        InputError: the file is unusable, of another family, does not fit, or `folder` holds something.
        MissingInputError: there is no such file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not empty: give a new folder.")
    found = open_networks(
        source, family=family, role=role, os_streams=os_streams, identities=identities, dont_load=dont_load
    )
    loaded = found.loaded
    _check_attention(source, loaded, attention)
    record = _record(source, found)
    with files.atomic_folder(folder) as partial:
        for phase, state in _states(loaded).items():
            with CheckpointStore(partial / phase / "checkpoints", best_metric=None, asynchronous=False) as store:
                store.save(0, jax.tree.map(jnp.asarray, state), data={"source": source.name}, wait=True)
        if loaded.left_out:
            (partial / LEFT_OUT).write_bytes(safetensors.numpy.save(_contiguous(loaded.left_out)))
        files.write_json(partial / RECORD, record)
    return record


def _contiguous(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in tensors.items()}


def _check_attention(source: Path, loaded: Loaded, wanted: str | None) -> None:
    for stream in loaded.streams:
        if wanted is not None and stream.role == "body" and stream.attention != wanted:
            raise InputError(
                f"{source}: the body network's CSA is of the form {stream.attention!r}, not {wanted!r}: correct"
                " --attention."
            )


def _states(loaded: Loaded) -> dict[str, dict[str, Any]]:
    states: dict[str, dict[str, Any]] = {}
    for role, variables in loaded.variables.items():
        phase, module = PLACES[role]
        state = states.setdefault(phase, {"params": {}, "batch_stats": {}})
        for collection, tree in variables.items():
            state[collection].update({module: tree} if module else tree)
    return states


def _record(source: Path, found: Opened) -> dict[str, Any]:
    family, loaded = found.family, found.loaded
    networks = {stream.role: asdict(stream) for stream in loaded.streams}
    body = next((s for s in loaded.streams if s.role == "body"), None)
    face = "student" if "student" in networks else "none"
    model = {
        "backbone": loaded.streams[0].backbone,
        "streams": loaded.os_streams,
        "attention": body.attention if body else "none",
        "feature_dim": loaded.streams[0].feature_dim,
        "body": body is not None,
        "face": "teacher" if set(networks) == {"teacher"} else face,
    }
    return {
        "source": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "bytes": source.stat().st_size,
        "format": found.format,
        "family": family,
        "streams": loaded.os_streams,
        "networks": networks,
        "class_order": file_class_order(found.metadata),
        "notes": loaded.notes,
        "model": None if family == "osnet" else model,
        PREPROCESSING: found.preprocessing,
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
