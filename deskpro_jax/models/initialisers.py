"""Initial values of a module's variables, without compiling the drawing of every parameter.

Compiled as one program, drawing a few hundred parameters takes XLA longer than the training step does (43 s against
30 s on two cores). An initialiser here returns its value in a box that names the distribution: only the shapes are
traced, and `fill` draws in NumPy. What has no box (stock flax layers) is initialised by the module itself.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import flax.core.meta
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

IMAGES = ("body", "face", "restored_face")  # fields of a batch
_CHUNK = 1 << 22  # values drawn at a time

# What it returns is annotated as Any: flax unboxes it before a module sees it.
Initialiser = Callable[..., Any]


class Drawn(flax.struct.PyTreeNode, flax.core.meta.AxisMetadata):
    """A parameter and the distribution it comes from: normal(mean, scale), uniform(-scale, scale), or `values`."""

    value: Any
    distribution: str = flax.struct.field(pytree_node=False)
    scale: float = flax.struct.field(pytree_node=False)
    values: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())
    mean: float = flax.struct.field(pytree_node=False, default=0.0)

    def unbox(self) -> Any:
        return self.value

    def replace_boxed(self, val: Any) -> Drawn:
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> Drawn:
        return self

    def remove_axis(self, index: int, params: dict[Any, Any]) -> Drawn:
        return self


def normal(stddev: float, mean: float = 0.0) -> Initialiser:
    """Returns an initialiser that draws from N(mean, stddev^2)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Drawn:
        return Drawn(mean + stddev * jax.random.normal(key, shape, dtype), "normal", stddev, mean=mean)

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


def fixed(values: tuple[float, ...]) -> Initialiser:
    """Returns an initialiser that puts `values` along the last axis."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Drawn:
        return Drawn(jnp.broadcast_to(jnp.asarray(values, dtype), shape), "constant", 0.0, values)

    return init


def kaiming_fan_out(fan_out: int) -> Initialiser:
    """Returns He et al.'s normal initialiser for ReLU, variance 2 / fan_out (PyTorch's mode="fan_out")."""
    return normal(math.sqrt(2.0 / fan_out))


def uniform_fan_in(fan_in: int) -> Initialiser:
    """Returns U(-1/sqrt(fan_in), 1/sqrt(fan_in)), what PyTorch gives a convolution that nobody initialises."""
    return uniform(1.0 / math.sqrt(fan_in))


def draw(init: Callable[[Array], Any], seed: int) -> dict[str, Any]:
    """Returns initial variables; see `shapes_of` and `fill`."""
    return fill(init, shapes_of(init), seed)


def init_variables(
    module: nn.Module, seed: int, sizes: Mapping[str, tuple[int, int]] = MappingProxyType({})
) -> dict[str, Any]:
    """Initialises parameters and running statistics.

    Args:
        module: a method's module, see `models/contract.py`.
        seed: of the initial values.
        sizes: height and width of the images of a batch by field; 32 x 32 where absent, for modules whose parameters
            do not depend on the size.

    Returns:
        A dict of `params` and `batch_stats`, float32 NumPy arrays.
    """
    return fill(*_init_and_shapes(module, tuple(sorted(sizes.items())), jnp.zeros(()).dtype), seed)


def variable_shapes(module: nn.Module, sizes: Mapping[str, tuple[int, int]] = MappingProxyType({})) -> dict[str, Any]:
    """Returns shapes and types of a module's `params` and `batch_stats`, see `init_variables`."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        flax.core.meta.unbox(_init_and_shapes(module, tuple(sorted(sizes.items())), jnp.zeros(()).dtype)[1]),
    )


@functools.lru_cache(maxsize=32)  # tracing takes as long as all else that reads or starts a network
def _init_and_shapes(
    module: nn.Module, sizes: tuple[tuple[str, tuple[int, int]], ...], float_type: Any
) -> tuple[Callable[[Array], Any], Any]:
    known = dict.fromkeys(IMAGES, (32, 32)) | dict(sizes)
    inputs = {name: jnp.zeros((1, *size, 3), float_type) for name, size in known.items()}
    init = lambda key: module.init(key, inputs, train=False)  # noqa: E731
    return init, shapes_of(init)


def shapes_of(init: Callable[[Array], Any]) -> Any:
    """Returns the shapes of `module.init` with its inputs bound, each in the box that its initialiser gives it."""
    return jax.eval_shape(init, jax.random.key(0))


def fill(init: Callable[[Array], Any], shapes: Any, seed: int) -> dict[str, Any]:
    """Returns initial variables: those in a `Drawn` box by their box, all others by the module's own initialisers.

    Args:
        init: `module.init` with its inputs bound; only run where a variable has no box.
        shapes: of `init`, from `shapes_of`.
        seed: each boxed variable draws from a stream of its own, named by seed and path; flax derives the keys of
            the others in the same way, from the seed and the names of their modules (same values on one platform).

    Returns:
        NumPy arrays by collection: `params`, `batch_stats` (empty for a module without running statistics), and any
        other that the module has.
    """
    own = iter(_values_without_box(init, seed, jax.tree.leaves(shapes, is_leaf=_is_box)))

    def value(path: Any, leaf: Any) -> np.ndarray:
        return _fill(leaf, seed, jax.tree_util.keystr(path)) if isinstance(leaf, Drawn) else next(own)

    filled = {
        collection: jax.tree_util.tree_map_with_path(value, shapes[collection], is_leaf=_is_box)
        for collection in sorted(shapes)  # the order of the leaves above
    }
    return {"params": {}, "batch_stats": {}, **filled}


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, flax.core.meta.AxisMetadata)


def _values_without_box(init: Callable[[Array], Any], seed: int, leaves: list[Any]) -> list[np.ndarray]:
    """Returns what `init` gives the leaves that are in no `Drawn` box; the compiler leaves out all else."""
    if all(isinstance(leaf, Drawn) for leaf in leaves):
        return []

    def values(key: Array) -> list[Any]:
        drawn = jax.tree.leaves(init(key), is_leaf=_is_box)
        return [flax.core.meta.unbox(leaf) for leaf in drawn if not isinstance(leaf, Drawn)]

    # "rbg" is one instruction a draw: a program of threefry draws takes six times as long to compile.
    return jax.device_get(jax.jit(values)(jax.random.key(seed, impl="rbg")))


def _fill(box: Drawn, seed: int, path: str) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
    shape, dtype = box.value.shape, box.value.dtype
    if box.distribution == "constant":
        return np.full(shape, box.values or box.scale, dtype)
    if box.distribution == "uniform":
        return rng.uniform(-box.scale, box.scale, shape).astype(dtype)
    values = np.empty(math.prod(shape), dtype)
    for start in range(0, len(values), _CHUNK):  # the same draws as at once, without a float64 copy of all of them
        part = values[start : start + _CHUNK]
        part[:] = box.mean + box.scale * rng.standard_normal(len(part))
    return values.reshape(shape)
