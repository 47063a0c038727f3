"""Networks as tensors under their published names, from a weights file or a workdir: what a training starts from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.storage.checksums import file_sha256
from deskpro_jax.weights.export import file_class_order, to_tensors
from deskpro_jax.weights.families import Recognised, recognise
from deskpro_jax.weights.opening import recognise_file
from deskpro_jax.weights.pretrained import name_of
from deskpro_jax.workdir.export import describe, networks_by_role
from deskpro_jax.workdir.networks import load_networks


class PublishedTensors(NamedTuple):
    """Networks under their published names.

    Attributes:
        recognised: the networks.
        name: of the file or workdir, as `pretrained.name_of`.
        sha256: of the file; "" for a workdir.
        format: as `WeightFile.format`, or "workdir".
        class_order: how the classifiers count identities, one of `data.load.classes.ORDERS`.
    """

    recognised: Recognised
    name: str
    sha256: str
    format: str
    class_order: str


def read_published(path: Path) -> PublishedTensors:
    """Reads a weights file, or the last checkpoints of a workdir.

    Args:
        path: a file of OSNet, LightMBN or DeSKPro, or a workdir that was trained or converted.

    Raises:
        MissingInputError: nothing is there.
        InputError: it is unusable, or of no known family; the message names it.
    """
    if not path.exists():
        raise MissingInputError(f"no file or workdir at {path}: correct the path of the weights.")
    if path.is_dir():
        recognised, class_order = _from_workdir(path)
        return PublishedTensors(recognised, path.name, "", "workdir", class_order)
    file, recognised = recognise_file(path)
    digest = file_sha256(path)
    return PublishedTensors(recognised, name_of(path), digest, file.format, file_class_order(file.metadata))


def refusal(field: str, path: Path, error: InputError) -> InputError:
    """Returns the error of weights that the configuration's `field` names: with the field and, once, the file."""
    text = str(error)
    return InputError(f"{field}: {text}" if text.startswith(str(path)) else f"{field}: {path}: {text}")


def _from_workdir(folder: Path) -> tuple[Recognised, str]:
    loaded = load_networks(folder, report="last", every_phase=True)
    tensors: dict[str, np.ndarray] = {}
    for role, (phase, stream) in networks_by_role(loaded).items():
        family = "osnet" if role == "osnet" else "deskpro"
        description = describe(loaded, role, phase, family)
        variables, step = phase.stream_variables(stream), phase.step(stream)
        tensors |= to_tensors(family, description, loaded.config.model.streams, variables, step, {})
    return recognise(tensors), loaded.record.class_order
