"""Published GPEN weights into flax variables, every tensor accounted for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_prep.identify import describe, unwrap
from data_prep.restoration.model import GPEN, Architecture
from data_prep.restoration.names import gpen, recognise
from deskpro_jax.errors import InputError
from deskpro_jax.storage.checksums import file_sha256
from deskpro_jax.weights import table
from deskpro_jax.weights.read import read_file


@dataclass(frozen=True, eq=False)
class Restorer:
    """A face restorer.

    Attributes:
        size: height and width of its faces in pixels.
        architecture: its other sizes.
        variables: `params` and `buffers`, NumPy arrays in float32.
        checksum: SHA-256 of its file, hexadecimal.
    """

    size: int
    architecture: Architecture
    variables: dict[str, Any]
    checksum: str

    @property
    def name(self) -> str:
        """What its faces are recorded as: "GPEN-BFR-256", "GPEN-BFR-512"."""
        return f"GPEN-BFR-{self.size}"


def load_restorer(path: str | Path) -> Restorer:
    """Reads a GPEN file (`GPEN-BFR-256.pth`, `GPEN-BFR-512.pth`); its shapes decide the size.

    Args:
        path: PyTorch or safetensors file; names may start with `module.`.

    Returns:
        The restorer, its variables on the host.

    Raises:
        MissingInputError: there is no such file.
        InputError: it is not a weights file, holds another network, or tensors are missing.
    """
    path = Path(path)
    held = read_file(path).tensors
    tensors = unwrap(held)
    architecture = recognise(tensors)
    if architecture is None:
        raise InputError(
            f"{path} holds {describe(held)} ({len(held)} tensors: {', '.join(list(held)[:3])[:200]}, ...), not a whole"
            " GPEN restorer: give GPEN-BFR-256.pth or GPEN-BFR-512.pth."
        )
    try:
        variables = to_variables(architecture, tensors)
    except InputError as error:
        raise InputError(f"{path} holds {describe(held)}, but not as published. {error}") from error
    return Restorer(architecture.size, architecture, variables, file_sha256(path))


def to_variables(architecture: Architecture, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the flax variables that a published state dict holds, in float32.

    Args:
        architecture: which network it is.
        tensors: by the names of the published code.

    Raises:
        InputError: a tensor has no place, another shape or type, is not finite, or is missing; lists all of them.
    """
    return table.load_whole(gpen(architecture), tensors, template(architecture))


@functools.cache
def template(architecture: Architecture) -> Any:
    """Returns variables of a restorer as `jax.ShapeDtypeStruct` leaves."""
    faces = jax.ShapeDtypeStruct((1, architecture.size, architecture.size, 3), jnp.float32)
    return jax.eval_shape(GPEN(architecture).init, jax.random.key(0), faces)
