"""Folds BatchNorm into the convolution before it, for inference: the same function with one pass less a layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from deskpro_jax.models.layers import BATCH_NORM_EPS, BatchNorm

# The convolution and the BatchNorm right after it, as modules of one parent name them.
_PAIRS = (("conv", "bn"), ("depthwise", "bn"), ("stem", "stem_norm"))
_FOLDED = frozenset(norm for _, norm in _PAIRS)


def fold(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Multiplies each convolution's kernel by the factor of the BatchNorm that follows it.

    Args:
        variables: `params` and `batch_stats` of a stream.

    Returns:
        Variables of the same structure and float32; each folded BatchNorm has its whole shift as bias, and scale,
        mean and variance that do nothing. They are the same network only inside `folded_norms`.
    """
    params, stats = _fold(variables["params"], variables["batch_stats"])
    return {"params": params, "batch_stats": stats}


def _fold(params: Mapping[str, Any], stats: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    new_params, new_stats = dict(params), dict(stats)
    for conv, norm in _PAIRS:
        if conv not in params or norm not in stats:  # an instance normalisation has no statistics
            continue
        whole = {name: np.asarray(value, np.float64) for name, value in {**params[norm], **stats[norm]}.items()}
        factor = whole["scale"] / np.sqrt(whole["var"] + BATCH_NORM_EPS)
        kernel = np.asarray(params[conv]["kernel"], np.float64)
        inner = kernel.ndim - factor.ndim  # axes of the kernel between its groups and its output channels
        kernel = kernel * factor.reshape(*factor.shape[:-1], *[1] * inner, factor.shape[-1])
        new_params[conv] = {**params[conv], "kernel": kernel.astype(np.float32)}
        shift = (whole["bias"] - whole["mean"] * factor).astype(np.float32)
        new_params[norm] = {"scale": np.ones_like(shift), "bias": shift}
        new_stats[norm] = {"mean": np.zeros_like(shift), "var": np.ones_like(shift)}
    for name, tree in params.items():
        if name not in _FOLDED and name in stats:
            new_params[name], new_stats[name] = _fold(tree, stats[name])
    return new_params, new_stats


@contextlib.contextmanager
def folded_norms() -> Iterator[None]:
    """Within it, BatchNorms that `fold` has folded only add their bias."""

    def shift(next_call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any) -> Any:
        module = context.module
        if isinstance(module, BatchNorm) and module.name in _FOLDED and context.method_name == "__call__":
            bias: Any = module.get_variable("params", "bias")
            return args[0] + bias.astype(args[0].dtype)[..., None, None, None, :]
        return next_call(*args, **kwargs)

    with nn.intercept_methods(shift):
        yield
