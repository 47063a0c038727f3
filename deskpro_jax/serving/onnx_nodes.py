"""Nodes, constants and values of an ONNX graph under way, whose first axis is a batch of any size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

BATCH = "batch"  # name of the first axis of every input
# The batch while tracing: a prime that no other axis is a multiple of, so that each multiple of it is one of the batch.
TRACED = 10_007


@dataclasses.dataclass(frozen=True)
class Value:
    """A value under way.

    Attributes:
        node: its name in the graph, or the array itself where it depends on no input.
        shape: of the array that is there; 1 where jax has broadcast it along an axis and ONNX does so by itself.
    """

    node: str | np.ndarray
    shape: tuple[int, ...]

    @property
    def is_constant(self) -> bool:
        """Whether it depends on no input."""
        return not isinstance(self.node, str)


class Graph:
    """Nodes and constants under way."""

    def __init__(self, first_input: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._first_input, self._batch = first_input, ""

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its value, or the names of its values."""
        names = [f"{kind}_{len(self.nodes)}{f'_{i}' if i else ''}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any, dtype: Any = None) -> str:
        """Returns the name of a constant."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(np.asarray(array, dtype)).reshape(np.shape(array))
        return name

    def integers(self, *values: int) -> str:
        """Returns the name of a constant vector of integers."""
        return self.constant(values, np.int64)

    def name(self, value: Value) -> str:
        """Returns the name of a value as it is there."""
        return value.node if isinstance(value.node, str) else self.constant(value.node)

    def full(self, value: Value, shape: Sequence[int]) -> str:
        """Returns the name of a value in all of its shape."""
        if tuple(value.shape) == tuple(shape):
            return self.name(value)
        if not isinstance(value.node, str) and not any(map(is_open, shape)):
            return self.constant(np.broadcast_to(value.node, shape))
        return str(self.add("Expand", self.name(value), self.sizes(shape)))

    def sizes(self, shape: Sequence[int]) -> str:
        """Returns the name of a vector of numbers, multiples of the batch among them."""
        if not any(map(is_open, shape)):
            return self.integers(*shape)
        return str(self.add("Concat", *[self._size(size) for size in shape], axis=0))

    def _size(self, size: int) -> str:
        if not is_open(size):
            return self.integers(size)
        self._batch = self._batch or self.add("Shape", self._first_input, start=0, end=1)
        times = size // TRACED
        return self._batch if times == 1 else str(self.add("Mul", self._batch, self.integers(times)))

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """Returns the name of a value in another shape."""
        if sum(map(is_open, shape)) > 1:
            return str(self.add("Reshape", name, self.sizes(shape)))
        return str(self.add("Reshape", name, self.integers(*[-1 if is_open(size) else size for size in shape])))

    def transpose(self, name: str, axes: Sequence[int]) -> str:
        """Returns the name of a value with its axes in another order."""
        return name if list(axes) == sorted(axes) else str(self.add("Transpose", name, perm=list(axes)))


def is_open(size: int) -> bool:
    """Returns whether a size is one of the batch."""
    return size != 0 and size % TRACED == 0


def constant(array: Any) -> Value:
    """Returns a value that is there already."""
    array = np.asarray(array)
    return Value(array, array.shape)


def broadcast_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Returns the shape of arrays of one rank (or none) together; an axis of 1 takes the size of the others."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))
