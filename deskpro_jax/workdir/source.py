"""Opens published weights wherever they are: in a PyTorch or safetensors file, or in a workdir."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.models.osnet import STREAM_CHOICES
from deskpro_jax.weights.export import file_class_order, to_tensors
from deskpro_jax.weights.families import Recognised, recognise
from deskpro_jax.weights.read import WeightFile, read_file
from deskpro_jax.workdir.stored import describe, read_networks


class Source(NamedTuple):
    """Opened weights.

    Attributes:
        found: the networks, under published names.
        name: of the file or workdir.
        sha256: of the file; "" for a workdir.
        format: as `WeightFile.format`, or "workdir".
        class_order: how its classifiers count identities, one of `deskpro_jax.data.load.classes.ORDERS`.
    """

    found: Recognised
    name: str
    sha256: str
    format: str
    class_order: str


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
        found, class_order = _from_workdir(path)
        return Source(found, path.name, "", "workdir", class_order)
    held, found = recognise_file(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source(found, path.name, digest, held.format, file_class_order(held.metadata))


def recognise_file(path: Path) -> tuple[WeightFile, Recognised]:
    """Reads a weights file and finds out which networks it holds, by its tensors and by what it says of itself.

    Args:
        path: a PyTorch or safetensors file.

    Raises:
        MissingInputError: there is no such file.
        InputError: it is unusable, or of no known family; the message names it.
    """
    held = read_file(path)
    try:
        found = recognise(held.tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    known = held.metadata.get("os_streams")
    if found.os_streams is None and known in STREAM_CHOICES:
        found = replace(found, os_streams=known)
    return held, found


def refusal(field: str, path: Path, error: InputError) -> InputError:
    """Returns the error of weights that the configuration's `field` names: with the field and, once, the file."""
    told = str(error)
    return InputError(f"{field}: {told}" if told.startswith(str(path)) else f"{field}: {path}: {told}")


def _from_workdir(folder: Path) -> tuple[Recognised, str]:
    held = read_networks(folder)
    tensors: dict[str, np.ndarray] = {}
    for role, variables in held.variables.items():
        stream, os_streams = describe(role, variables, held.family)
        tensors |= to_tensors(held.family, stream, os_streams, variables, held.step(role), {})
    return recognise(tensors), held.class_order
