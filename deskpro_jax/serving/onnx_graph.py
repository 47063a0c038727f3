"""A program as ONNX nodes: the operations that jax traces, one by one; what depends on no input is computed here.

Any network goes this way, a fork's too. Arrays keep the axes that they have in jax, so that a convolution stands
between two transpositions, most of which onnxruntime takes away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr
from onnx import TensorProto, helper, numpy_helper

from deskpro_jax.errors import InputError
from deskpro_jax.models.streams import with_choices
from deskpro_jax.serving.onnx_nodes import BATCH, TRACED, Graph, Value, constant, is_open
from deskpro_jax.serving.onnx_operations import OPERATIONS
from deskpro_jax.serving.program import Input, Program, embedding_function

OPSET = 18
IR_VERSION = 8  # the oldest that has the opset
TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "bool": TensorProto.BOOL}
# Operations that change nothing in inference on one device.
_SAME = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision", "sharding_constraint")
# Operations that call a function once -> the parameter that holds it.
_CALLS = {
    **dict.fromkeys(("jit", "pjit", "checkpoint", "remat", "remat2"), "jaxpr"),
    **dict.fromkeys(("closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr"),
}


def _run(graph: Graph, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
    """Adds the nodes of a traced function; returns its results."""
    values: dict[Any, Value] = {}
    for variable, array in zip(jaxpr.constvars, constants, strict=True):
        values[variable] = constant(array)
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Value:
        return constant(variable.val) if hasattr(variable, "val") else values[variable]

    for equation in jaxpr.eqns:
        results = _equation(graph, equation, [read(variable) for variable in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _equation(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    kind, parameters = equation.primitive.name, equation.params
    if kind == "platform_index":
        return [constant(np.int32(len(parameters["platforms"]) - 1))]  # the form of any other platform
    if kind == "cond" and inputs[0].is_constant:
        branch = parameters["branches"][int(np.clip(inputs[0].node, 0, len(parameters["branches"]) - 1))]
        return _run(graph, branch.jaxpr, branch.consts, inputs[1:])
    if kind in _CALLS:
        called = parameters[_CALLS[kind]]
        closed = called if hasattr(called, "consts") else ClosedJaxpr(called, ())
        return _run(graph, closed.jaxpr, closed.consts, inputs)
    if kind in _SAME:
        return inputs
    shapes = [variable.aval.shape for variable in equation.outvars]
    if all(value.is_constant for value in inputs) and not any(is_open(size) for shape in shapes for size in shape):
        return _computed(equation, inputs)
    if kind not in OPERATIONS:
        raise InputError(
            f"the network uses {kind} of jax, which has no form in ONNX here: export StableHLO"
            " (--to FILE.stablehlo), or replace the operation."
        )
    results = OPERATIONS[kind](graph, equation, inputs)
    return results if isinstance(results, list) else [results]


def _computed(equation: Any, inputs: Sequence[Value]) -> list[Value]:
    arrays = [
        np.broadcast_to(value.node, variable.aval.shape)
        for value, variable in zip(inputs, equation.invars, strict=True)
    ]
    results = equation.primitive.bind(*arrays, **equation.params)
    return [constant(result) for result in (results if equation.primitive.multiple_results else [results])]


def build(program: Program) -> onnx.ModelProto:
    """Returns the program as an ONNX model with a batch of any size and the names of `program.inputs`.

    Raises:
        InputError: a network uses an operation that has no ONNX form here.
    """
    # One operation for each depthwise convolution: runtimes have it, and shifted products become thousands of slices.
    networks = [n._replace(module=with_choices(n.module, depthwise="grouped")) for n in program.networks]
    program = dataclasses.replace(program, networks=tuple(networks))
    return convert(embedding_function(program), program.inputs)


def convert(function: Callable[..., Any], inputs: Sequence[Input]) -> onnx.ModelProto:
    """Returns a function as an ONNX model whose output is called "embeddings".

    Args:
        function: of arrays [batch, ...] to an array with the same first axis.
        inputs: its arguments.

    Raises:
        InputError: it uses an operation that has no ONNX form here.
    """
    arguments = [jax.ShapeDtypeStruct((TRACED, *entry.shape), entry.dtype) for entry in inputs]
    traced = jax.make_jaxpr(function)(*arguments)
    graph = Graph(inputs[0].name)
    values = [Value(entry.name, (TRACED, *entry.shape)) for entry in inputs]
    (result,) = _run(graph, traced.jaxpr, traced.consts, values)
    (output,) = traced.out_avals
    graph.nodes.append(helper.make_node("Identity", [graph.full(result, output.shape)], ["embeddings"]))
    used = {name for node in graph.nodes for name in node.input}
    model = helper.make_graph(
        graph.nodes,
        "embed",
        [helper.make_tensor_value_info(e.name, TYPES[e.dtype], [BATCH, *e.shape]) for e in inputs],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, [BATCH, *output.shape[1:]])],
        [numpy_helper.from_array(array, name) for name, array in graph.constants.items() if name in used],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(model, opset_imports=opset, ir_version=IR_VERSION, producer_name="deskpro_jax")
