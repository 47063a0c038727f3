"""Counts the floating-point operations of a program's convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any


def count_flops(jaxpr: Any) -> int:
    """Returns the operations of all convolutions and products, two for each multiply-add; loops count every turn.

    The compiler's own analysis counts the body of a loop once, and nothing of a convolution that a library does.

    Args:
        jaxpr: of a program, as `jax.make_jaxpr` makes it.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
            products = math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
            # A transposed convolution puts zeros between its inputs; products with them are not counted.
            total += 2 * products // math.prod(parameters["lhs_dilation"] or (1,))
        elif name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        turns = parameters["length"] if name == "scan" else 1
        total += turns * sum(count_flops(inner) for inner in _inner(parameters))
    return total


def _inner(parameters: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the programs among the parameters of an equation: of a loop, a branch, a call."""
    for value in parameters.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            program = getattr(one, "jaxpr", one)
            if hasattr(program, "eqns"):
                yield program
