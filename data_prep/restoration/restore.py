"""Restores aligned faces with GPEN: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, UInt8

from data_prep.restoration.load import Restorer
from data_prep.restoration.model import GPEN
from deskpro_jax.errors import InputError
from deskpro_jax.models.layers import Dtype, at_least_float32


def restore(
    restorer: Restorer,
    variables: Mapping[str, Any],
    faces: UInt8[Array, "batch size size 3"],
    *,
    dtype: Dtype = jnp.float32,
) -> UInt8[Array, "batch size size 3"]:
    """Runs the restorer; pure, to be jitted with `restorer` fixed, and every face on its own.

    Args:
        restorer: decides the architecture; its own variables are not read.
        variables: its variables, placed on the devices by the caller.
        faces: RGB, cut out by `data_prep.restoration.align.align` at the restorer's size.
        dtype: of the network.

    Returns:
        Restored faces, RGB; like the published code it rounds down to whole grey levels.

    Raises:
        InputError: faces of another size or type.
    """
    faces = jnp.asarray(faces)
    expected = (restorer.size, restorer.size, 3)
    if faces.ndim != 4 or faces.shape[1:] != expected or faces.dtype != jnp.uint8:
        raise InputError(
            f"faces are {faces.dtype} {tuple(faces.shape)}; {restorer.name} takes uint8 [batch, {restorer.size}, "
            f"{restorer.size}, 3]: align the faces at {restorer.size} pixels."
        )
    exact = at_least_float32(dtype)
    image, _ = GPEN(restorer.architecture, dtype).apply(variables, (faces.astype(exact) / 255.0 - 0.5) / 0.5)
    return (jnp.clip(image.astype(exact) * 0.5 + 0.5, 0.0, 1.0) * 255.0).astype(jnp.uint8)
