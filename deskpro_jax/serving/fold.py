"""Folds BatchNorm into the convolution before it, for inference: the same function with one pass less a layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from deskpro_jax.models.layers import BATCH_NORM_EPS, BatchNorm

# The convolution and the BatchNorm right after it, as modules of one parent name them.
_PAIRS = (
    *(("conv", "bn"), ("depthwise", "bn"), ("stem", "stem_norm")),
    *((f"conv{i}", f"bn{i}") for i in (1, 2, 3)),  # ResNet
)
_FOLDED = frozenset(norm for _, norm in _PAIRS)  # these BatchNorms follow such a convolution wherever they occur


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
        # An instance normalisation has no statistics; a module of that name may hold several layers.
        if "kernel" not in params.get(conv, {}) or "mean" not in stats.get(norm, {}):
            continue
        whole = {name: np.asarray(value, np.float64) for name, value in {**params[norm], **stats[norm]}.items()}
        factor = whole["scale"] / np.sqrt(whole["var"] + BATCH_NORM_EPS)
        kernel = np.asarray(params[conv]["kernel"], np.float64)
        inner = kernel.ndim - factor.ndim  # axes of the kernel between its groups and its output channels
        kernel = kernel * factor.reshape(*factor.shape[:-1], *[1] * inner, factor.shape[-1])
        before = np.asarray(params[conv].get("bias", 0.0), np.float64)  # what the convolution itself adds
        shift = (whole["bias"] + (before - whole["mean"]) * factor).astype(np.float32)
        new_params[conv] = {name: np.zeros_like(value) for name, value in params[conv].items()}
        new_params[conv]["kernel"] = kernel.astype(np.float32)
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
