"""Parameter initialisers that say what they draw, so that a whole model can be initialised without compiling it.

Compiled as one program, the draws of a few hundred parameters take XLA longer than the training step does (43 s
against 30 s on two cores). An initialiser here returns its value in a box that names the distribution; `draw`
evaluates shapes only and then fills them in NumPy.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import flax.core.meta
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

_CHUNK = 1 << 22  # values drawn at a time

# What it returns is annotated as Any: flax unboxes it before a module sees it.
Initialiser = Callable[..., Any]


class Drawn(flax.struct.PyTreeNode, flax.core.meta.AxisMetadata):
    """A parameter and the distribution it comes from: normal(0, scale) or uniform(-scale, scale)."""

    value: Any
    distribution: str = flax.struct.field(pytree_node=False)
    scale: float = flax.struct.field(pytree_node=False)

    def unbox(self) -> Any:
        return self.value

    def replace_boxed(self, val: Any) -> Drawn:
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> Drawn:
        return self

    def remove_axis(self, index: int, params: dict[Any, Any]) -> Drawn:
        return self


def normal(stddev: float) -> Initialiser:
    """Returns an initialiser that draws from N(0, stddev^2)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Drawn:
        return Drawn(stddev * jax.random.normal(key, shape, dtype), "normal", stddev)

    return init


def uniform(bound: float) -> Initialiser:
    """Returns an initialiser that draws from U(-bound, bound)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Drawn:
        return Drawn(jax.random.uniform(key, shape, dtype, -bound, bound), "uniform", bound)

    return init


def constant(value: float) -> Initialiser:
    """Returns an initialiser that fills with `value`."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Drawn:
        return Drawn(jnp.full(shape, value, dtype), "constant", value)

    return init


def kaiming_fan_out(fan_out: int) -> Initialiser:
    """Returns He et al.'s normal initialiser for ReLU, variance 2 / fan_out (PyTorch's mode="fan_out")."""
    return normal(math.sqrt(2.0 / fan_out))


def uniform_fan_in(fan_in: int) -> Initialiser:
    """Returns U(-1/sqrt(fan_in), 1/sqrt(fan_in)), what PyTorch gives a convolution that nobody initialises."""
    return uniform(1.0 / math.sqrt(fan_in))


def draw(init: Callable[[Array], Any], seed: int) -> dict[str, Any]:
    """Evaluates the shapes of `init` and fills them; see `shapes_of` and `fill`."""
    return fill(shapes_of(init), seed)


def shapes_of(init: Callable[[Array], Any]) -> Any:
    """Returns the shapes of `module.init` with its inputs bound, parameters in their boxes."""
    return jax.eval_shape(init, jax.random.key(0))


def fill(shapes: Any, seed: int) -> dict[str, Any]:
    """Draws values, parameters by their boxes, running statistics as 0 and 1.

    Args:
        shapes: from `shapes_of`.
        seed: of the values; each parameter draws from a stream of its own, named by its path.

    Returns:
        A dict of `params` and `batch_stats`, NumPy arrays.
    """
    is_box = lambda leaf: isinstance(leaf, Drawn)  # noqa: E731
    params = jax.tree_util.tree_map_with_path(
        lambda path, box: _fill(box, seed, jax.tree_util.keystr(path)), shapes["params"], is_leaf=is_box
    )
    stats = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(leaf.shape, float(path[-1].key == "var"), leaf.dtype), shapes["batch_stats"]
    )
    return {"params": params, "batch_stats": stats}


def _fill(box: Drawn, seed: int, path: str) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
    shape, dtype = box.value.shape, box.value.dtype
    if box.distribution == "constant":
        return np.full(shape, box.scale, dtype)
    if box.distribution == "uniform":
        return rng.uniform(-box.scale, box.scale, shape).astype(dtype)
    values = np.empty(math.prod(shape), dtype)
    for start in range(0, len(values), _CHUNK):  # the same draws as at once, without a float64 copy of all of them
        part = values[start : start + _CHUNK]
        part[:] = box.scale * rng.standard_normal(len(part))
    return values.reshape(shape)
