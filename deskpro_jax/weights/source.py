"""Opens published weights wherever they are: in a PyTorch or safetensors file, or in a workdir."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.models.osnet import STREAM_CHOICES
from deskpro_jax.weights.export import to_tensors
from deskpro_jax.weights.families import Recognised, recognise
from deskpro_jax.weights.networks import describe, read_networks
from deskpro_jax.weights.read import read_file


class Source(NamedTuple):
    """Opened weights.

    Attributes:
        found: the networks, under published names.
        name: of the file or workdir.
        sha256: of the file; "" for a workdir.
        format: as `WeightFile.format`, or "workdir".
    """

    found: Recognised
    name: str
    sha256: str
    format: str


def open_source(path: Path) -> Source:
    """Opens a weights file, or the last checkpoints of a workdir.

    Args:
        path: a file of OSNet, LightMBN or DeSKPro, or a workdir that was trained or converted.

    Raises:
        MissingInputError: nothing is there.
        InputError: it is unusable, or of no known family; the message names it.
    """
    if not path.exists():
        raise MissingInputError(f"no file or workdir at {path}: correct the path of the weights.")
    if path.is_dir():
        return Source(_from_workdir(path), path.name, "", "workdir")
    held = read_file(path)
    try:
        found = recognise(held.tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    known = held.metadata.get("os_streams")
    if found.os_streams is None and known in STREAM_CHOICES:
        found = replace(found, os_streams=known)
    return Source(found, path.name, hashlib.sha256(path.read_bytes()).hexdigest(), held.format)


def _from_workdir(folder: Path) -> Recognised:
    held = read_networks(folder)
    tensors: dict[str, np.ndarray] = {}
    for role, variables in held.variables.items():
        stream, os_streams = describe(role, variables, held.family)
        tensors |= to_tensors(held.family, stream, os_streams, variables, held.step(role), {})
    return recognise(tensors)
