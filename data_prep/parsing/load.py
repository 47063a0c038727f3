"""Reads a parser's published weights; every tensor of the file is accounted for."""

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
from data_prep.parsing.model import SCHP
from data_prep.parsing.names import schp
from deskpro_jax.data.schema import ATR, LIP, PASCAL, LabelScheme
from deskpro_jax.errors import InputError
from deskpro_jax.storage.checksums import file_sha256
from deskpro_jax.weights import table
from deskpro_jax.weights.read import read_file

# Scheme and crop size by the number of classes.
VARIANTS = {len(scheme.labels): (scheme, size) for scheme, size in ((LIP, 473), (ATR, 512), (PASCAL, 512))}
_CLASSIFIER = "fushion.3.weight"


@dataclass(frozen=True, eq=False)
class Parser:
    """A parser ready to run.

    Attributes:
        scheme: what its labels mean.
        size: pixels along a side of its crops.
        variables: flax variables of `SCHP`, NumPy arrays in float32.
        checksum: SHA-256 of the file, in hexadecimal.
    """

    scheme: LabelScheme
    size: int
    variables: Any
    checksum: str


def load_parser(path: Path) -> Parser:
    """Reads an official SCHP file; which of the three label schemes it has shows from its classes.

    Args:
        path: a file such as exp-schp-201908261155-lip.pth, or the same tensors as safetensors.

    Raises:
        MissingInputError: there is no such file.
        InputError: it is not a weights file, is damaged, holds another network, or a tensor is missing, left over, of
            another shape, of another type or not finite.
    """
    tensors = unwrap(read_file(path).tensors)
    classes = _classes(tensors)
    if classes not in VARIANTS:
        known = ", ".join(f"{count} ({scheme.name})" for count, (scheme, _) in VARIANTS.items())
        raise InputError(
            f"{path} holds {describe(tensors)}; expected an SCHP parser with one of these numbers of classes: {known}."
            " The published one for LIP is exp-schp-201908261155-lip.pth."
        )
    scheme, size = VARIANTS[classes]
    try:
        variables = fill(tensors, classes)
    except InputError as error:
        raise InputError(f"{path} (it looks like {describe(tensors)}): {error}") from error
    return Parser(scheme, size, variables, file_sha256(Path(path)))


def fill(tensors: Mapping[str, np.ndarray], classes: int) -> dict[str, Any]:
    """Returns the variables of `SCHP(classes)` in float32.

    Args:
        tensors: by their official names, without wrappers.
        classes: labels of the scheme.

    Raises:
        InputError: a tensor is missing, left over, of another shape, of another type or not finite; lists them.
    """
    return table.load_whole(schp(), tensors, template(classes))


@functools.cache
def template(classes: int) -> Any:
    """Returns shapes and types of the variables of `SCHP(classes)`."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(SCHP(classes).init, jax.random.key(0), image)


def _classes(tensors: Mapping[str, np.ndarray]) -> int:
    """Returns the outputs of the last convolution, 0 where there is none."""
    shape = np.shape(tensors.get(_CLASSIFIER, ()))
    return int(shape[0]) if len(shape) == 4 else 0
