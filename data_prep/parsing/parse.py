"""Runs a parser on a batch of crops: from pixels to the logits of every label."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from data_prep.parsing.load import Parser
from data_prep.parsing.model import SCHP, normalise
from deskpro_jax.errors import InputError
from deskpro_jax.models.layers import Dtype


def parse_logits(
    parser: Parser, variables: Any, crops: UInt8[Array, "batch size size 3"], dtype: Dtype = jnp.float32
) -> Float[Array, "batch rows columns classes"]:
    """Returns the logits of every label; pure, and every image by itself, so that a batch may be split over devices.

    Args:
        parser: decides the network; its own variables are not used.
        variables: the network's variables, placed on the devices by the caller.
        crops: RGB crops, usually of `parser.size`.
        dtype: of the computation.

    Returns:
        Logits at a quarter of the crops' height and width, rounded up, in float32 or more.

    Raises:
        InputError: the crops are not uint8 RGB images.
    """
    if crops.ndim != 4 or crops.shape[-1] != 3 or crops.dtype != jnp.uint8:
        raise InputError(f"crops are {crops.dtype} {crops.shape}; expected uint8 [batch, size, size, 3] in RGB.")
    return SCHP(len(parser.scheme.labels), dtype).apply(variables, normalise(crops))[0]
