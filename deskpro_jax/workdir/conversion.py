"""Weights files into workdirs: every network of a file as a checkpoint, step 0, with a record of where it came from."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import InputError
from deskpro_jax.storage import files
from deskpro_jax.storage.checksums import file_sha256
from deskpro_jax.weights.export import versions
from deskpro_jax.weights.opening import OpenedWeights, open_weights
from deskpro_jax.weights.pretrained import find_weights, name_of, warn_of_drawn_people
from deskpro_jax.workdir.record import CONVERSION_FILE, LEFT_OUT, PREPROCESSING


def import_weights(
    source: str | Path,
    folder: Path,
    *,
    family: str | None = None,
    role: str | None = None,
    os_streams: str | None = None,
    attention: str | None = None,
    identities: int | None = None,
    dont_load: Sequence[str] = (),
    weights: str | None = None,
) -> dict[str, Any]:
    """Writes the networks of a weights file as checkpoints of a workdir, step 0.

    Args:
        source: a PyTorch or safetensors file of a known family, or "pretrained:NAME".
        folder: new or empty; gets `student/` (face student, body), `teacher/` or `osnet/` with their `checkpoints/`,
            `conversion.json`, and `left_out.safetensors` with the tensors that no variable holds. On failure nothing.
        family: what the file must be; None takes what its names say.
        role: what a network is whose names do not say so: "body" (also the default for LightMBN), "student", "teacher".
        os_streams: OSBlock streams; None for those the file was trained with.
        attention: form of CSA that the body network must have.
        identities: of new classifiers; None keeps the file's.
        dont_load: regular expressions for names of tensors to leave out.
        weights: "plain" or "ema", of a file that has both; None for the plain ones, with a warning.

    Returns:
        The content of `conversion.json`.

    Raises:
        InputError: the file is unusable, of another family, does not fit, or `folder` holds something.
        MissingInputError: the file does not exist.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not empty; choose a new folder.")
    files.check_writable(folder.parent, "choose another new folder")
    path = find_weights(source)
    warn_of_drawn_people(path)
    opened = open_weights(
        path,
        family=family,
        role=role,
        os_streams=os_streams,
        identities=identities,
        dont_load=dont_load,
        weights=weights,
    )
    if weights == "ema":
        opened.notes.append("the EMA weights of the file are read")
    _check_attention(path, opened, attention)
    record = _record(path, opened)
    with files.atomic_folder(folder) as partial:
        for phase, state in opened.states.items():
            with CheckpointStore(partial / phase / "checkpoints", best_metric=None, asynchronous=False) as store:
                store.save(0, jax.tree.map(jnp.asarray, state), data={"source": record["source"]}, wait=True)
        if opened.left_out:
            (partial / LEFT_OUT).write_bytes(safetensors.numpy.save(_contiguous(opened.left_out)))
        files.write_json(partial / CONVERSION_FILE, record)
    return record


def _contiguous(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in tensors.items()}


def _check_attention(source: Path, opened: OpenedWeights, attention: str | None) -> None:
    held = opened.networks.get("body", {}).get("attention", "none")
    if attention is not None and "body" in opened.networks and held != attention:
        raise InputError(
            f"{source}: the body network's CSA is of the form {held!r}, not {attention!r}: correct --attention."
        )


def _record(source: Path, opened: OpenedWeights) -> dict[str, Any]:
    return {
        "source": name_of(source),
        "sha256": file_sha256(source),
        "bytes": source.stat().st_size,
        "format": opened.format,
        "family": opened.family,
        "streams": opened.os_streams,
        "networks": opened.networks,
        "class_order": opened.class_order,
        "notes": opened.notes,
        "model": opened.model,
        "fields": {name: value for name, value in opened.fields.items() if not name.startswith("model.")},
        PREPROCESSING: opened.preprocessing,
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
