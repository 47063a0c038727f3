"""Rematerialisation: a block's backward pass recomputes intermediate results instead of keeping them in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array

from deskpro_jax.errors import InputError

# Name -> which intermediate results of a block are kept for its backward pass, beside its input.
_KEPT: dict[str, Callable[..., Any]] = {
    "light": jax.checkpoint_policies.dots_saveable,
    "blocks": jax.checkpoint_policies.nothing_saveable,
}
REMATS = ("none", *_KEPT)


def check_remat(remat: str) -> None:
    """Raises InputError when `train.remat` is not one of `REMATS`."""
    if remat not in REMATS:
        raise InputError(f"train.remat is {remat!r}; expected one of {', '.join(REMATS)}.")


def run_block(block: nn.Module, x: Array | tuple[Array, ...], *, train: bool, valid: Array | None, remat: str) -> Array:
    """Runs a block, rematerialised as `remat` says (Chen et al., arXiv:1604.06174).

    Args:
        block: a module called as `block(x, train=..., valid=...)`.
        x: its input or inputs.
        train: see the block; without training there is no backward pass to keep anything for.
        valid: see the block.
        remat: "none" keeps everything; "light" keeps the results of matrix products and recomputes normalisation,
            depthwise convolutions and gates; "blocks" keeps only the input.

    Returns:
        The block's output; its parameters and statistics have the same values and names for each choice.
    """
    if not train or remat == "none":
        return block(x, train=train, valid=valid)

    def run(module: nn.Module, inputs: Array | tuple[Array, ...]) -> Array:
        return module(inputs, train=train, valid=valid)

    return nn.remat(run, policy=_KEPT[remat])(block, x)
