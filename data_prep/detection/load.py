"""Published RetinaFace weights into flax variables, every tensor accounted for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.core.meta
import jax
import jax.numpy as jnp
import numpy as np

from data_prep.detection.model import VARIANTS, RetinaFace
from data_prep.detection.names import retinaface
from data_prep.identify import describe, unwrap
from deskpro_jax.errors import InputError
from deskpro_jax.storage.checksums import file_sha256
from deskpro_jax.weights import table
from deskpro_jax.weights.read import read_file


@dataclass(frozen=True, eq=False)
class Detector:
    """A face detector.

    Attributes:
        variant: one of `data_prep.detection.model.VARIANTS`.
        variables: `params` and `batch_stats`, NumPy arrays in float32.
        checksum: SHA-256 of its file, hexadecimal.
    """

    variant: str
    variables: dict[str, Any]
    checksum: str


def load_detector(path: str | Path) -> Detector:
    """Reads a RetinaFace file (`mobilenet0.25_Final.pth`, `Resnet50_Final.pth`); its names decide the variant.

    Args:
        path: PyTorch or safetensors file; names may start with `module.`.

    Raises:
        MissingInputError: there is no such file.
        InputError: it is not a weights file, holds another network, or tensors are missing.
    """
    path = Path(path)
    tensors = read_file(path).tensors
    network = describe(tensors)
    variant = next((variant for variant in VARIANTS if network == f"a RetinaFace detector ({variant})"), None)
    if variant is None:
        raise InputError(
            f"{path} holds {network} ({len(tensors)} tensors: {', '.join(list(tensors)[:3])[:200]}, ...); expected a"
            f" RetinaFace detector ({' or '.join(VARIANTS)}): give mobilenet0.25_Final.pth or Resnet50_Final.pth."
        )
    try:
        variables = to_variables(variant, unwrap(tensors))
    except InputError as error:
        raise InputError(
            f"{path} holds {network}, but not all of it as published: fetch the file again. {error}"
        ) from error
    return Detector(variant, variables, file_sha256(path))


def to_variables(variant: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the flax variables that a published state dict holds, in float32.

    Args:
        variant: which network it is.
        tensors: by the names of the published code.

    Raises:
        InputError: a tensor is unknown, of another shape or type, is not finite, or is missing; lists all of them.
    """
    return table.load_whole(retinaface(variant), tensors, _template(variant))


@functools.cache
def _template(variant: str) -> Any:
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return flax.core.meta.unbox(jax.eval_shape(RetinaFace(variant).init, jax.random.key(0), image))
