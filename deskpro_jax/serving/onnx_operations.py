"""Operations of jax as nodes of an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from deskpro_jax.errors import InputError
from deskpro_jax.serving.onnx_nodes import Graph, Value, broadcast_shape, constant

# Operations of jax that are one of ONNX on each element.
_ELEMENTWISE = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "pow": "Pow",
    "neg": "Neg",
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "sin": "Sin",
    "logistic": "Sigmoid",
    "floor": "Floor",
    "ceil": "Ceil",
    "sign": "Sign",
    "erf": "Erf",
    "cos": "Cos",
    "and": "And",
    "or": "Or",
    "not": "Not",
    "eq": "Equal",
    "lt": "Less",
    "gt": "Greater",
    "xor": "Xor",
    "le": "LessOrEqual",
    "ge": "GreaterOrEqual",
}
_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
_FARTHEST = -np.iinfo(np.int64).max


def _elementwise(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    kind = equation.primitive.name
    largest = broadcast_shape([value.shape for value in inputs])
    zero = [value for value in inputs if value.is_constant and np.ndim(value.node) == 0 and value.node == 0]
    if kind == "max" and zero:
        other = inputs[0] if inputs[1] is zero[0] else inputs[1]
        return Value(graph.add("Relu", graph.name(other)), other.shape)
    return Value(graph.add(_ELEMENTWISE[kind], *[graph.name(value) for value in inputs]), largest)


def _convert(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    target = helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
    return Value(graph.add("Cast", graph.name(inputs[0]), to=target), inputs[0].shape)


def _square(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    name = graph.name(inputs[0])
    return Value(graph.add("Mul", name, name), inputs[0].shape)


def _integer_pow(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    if equation.params["y"] == 2:
        return _square(graph, equation, inputs)
    exponent = graph.constant(equation.params["y"], equation.invars[0].aval.dtype)
    return Value(graph.add("Pow", graph.name(inputs[0]), exponent), inputs[0].shape)


def _rsqrt(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    return Value(graph.add("Reciprocal", graph.add("Sqrt", graph.name(inputs[0]))), inputs[0].shape)


def _log1p(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    one = graph.constant(1, equation.invars[0].aval.dtype)
    return Value(graph.add("Log", graph.add("Add", graph.name(inputs[0]), one)), inputs[0].shape)


def _expm1(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    one = graph.constant(1, equation.invars[0].aval.dtype)
    return Value(graph.add("Sub", graph.add("Exp", graph.name(inputs[0])), one), inputs[0].shape)


def _remainder(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    name = graph.add("Mod", *[graph.name(value) for value in inputs], fmod=1)  # the sign is the dividend's
    return Value(name, broadcast_shape([value.shape for value in inputs]))


def _not_equal(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    equal = graph.add("Equal", *[graph.name(value) for value in inputs])
    return Value(graph.add("Not", equal), broadcast_shape([value.shape for value in inputs]))


def _clamp(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    low, value, high = inputs
    raised = graph.add("Max", graph.name(value), graph.name(low))
    return Value(graph.add("Min", raised, graph.name(high)), broadcast_shape([one.shape for one in inputs]))


def _select(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    which, *cases = inputs
    if len(cases) != 2 or equation.invars[0].aval.dtype != np.bool_:
        raise InputError("the network selects among more than two arrays, which has no form in ONNX here.")
    shape = broadcast_shape([value.shape for value in inputs])
    return Value(graph.add("Where", *[graph.name(value) for value in (which, cases[1], cases[0])]), shape)


def _reduce(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    name = graph.full(inputs[0], equation.invars[0].aval.shape)
    axes = graph.integers(*equation.params["axes"])
    shape = equation.outvars[0].aval.shape
    return Value(graph.add(_REDUCTIONS[equation.primitive.name], name, axes, keepdims=0), shape)


def _reshape(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    shape = equation.outvars[0].aval.shape
    name = graph.full(inputs[0], equation.invars[0].aval.shape)
    if (order := equation.params.get("dimensions")) is not None:
        name = graph.transpose(name, order)
    return Value(graph.reshape(name, shape), shape)


def _broadcast_in_dim(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    (value, *_), shape = inputs, equation.outvars[0].aval.shape
    there: list[int] = [1] * len(shape)
    for axis, size in zip(equation.params["broadcast_dimensions"], value.shape, strict=True):
        there[axis] = size
    if isinstance(value.node, str):
        return Value(graph.reshape(value.node, there) if tuple(there) != value.shape else value.node, tuple(there))
    return Value(value.node.reshape(there), tuple(there))


def _transpose(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    axes = equation.params["permutation"]
    name = graph.transpose(graph.name(inputs[0]), axes)
    return Value(name, tuple(inputs[0].shape[axis] for axis in axes))


def _slice(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
    steps = equation.params["strides"] or (1,) * len(starts)
    sizes = equation.invars[0].aval.shape
    cut = [i for i, size in enumerate(sizes) if starts[i] != 0 or limits[i] != size or steps[i] != 1]
    name = graph.full(inputs[0], sizes)
    if cut:
        bounds = ([starts[i] for i in cut], [limits[i] for i in cut], cut, [steps[i] for i in cut])
        name = graph.add("Slice", name, *[graph.sizes(one) for one in bounds])
    return Value(name, equation.outvars[0].aval.shape)


def _reverse(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    axes = equation.params["dimensions"]
    bounds = ([-1] * len(axes), [_FARTHEST] * len(axes), axes, [-1] * len(axes))
    name = graph.full(inputs[0], equation.invars[0].aval.shape)
    return Value(graph.add("Slice", name, *[graph.integers(*b) for b in bounds]), equation.outvars[0].aval.shape)


def _split(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    name = graph.full(inputs[0], equation.invars[0].aval.shape)
    sizes = graph.integers(*equation.params["sizes"])
    names = graph.add("Split", name, sizes, outputs=len(equation.outvars), axis=equation.params["axis"])
    return [Value(n, variable.aval.shape) for n, variable in zip(names, equation.outvars, strict=True)]


def _concatenate(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    names = [graph.full(value, variable.aval.shape) for value, variable in zip(inputs, equation.invars, strict=True)]
    joined = graph.add("Concat", *names, axis=equation.params["dimension"])
    return Value(joined, equation.outvars[0].aval.shape)


def _stack(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    axis, shape = equation.params["axis"], equation.outvars[0].aval.shape
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    names = [
        graph.reshape(graph.full(value, variable.aval.shape), one)
        for value, variable in zip(inputs, equation.invars, strict=True)
    ]
    return Value(graph.add("Concat", *names, axis=axis), shape)


def _pad(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    low, high, interior = zip(*equation.params["padding_config"], strict=True)
    if any(interior) or min(*low, *high) < 0:
        raise InputError("the network pads between numbers or by less than nothing, which has no form in ONNX here.")
    name = graph.full(inputs[0], equation.invars[0].aval.shape)
    padded = graph.add("Pad", name, graph.integers(*low, *high), graph.name(inputs[1]))
    return Value(padded, equation.outvars[0].aval.shape)


def _product(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    """Adds a matrix product: axes in both go first, then those of one operand, then those that are summed over."""
    contracted, batched = equation.params["dimension_numbers"]
    sizes = [variable.aval.shape for variable in equation.invars]
    names, frees = [], []
    for side, order in enumerate(((0, 1, 2), (0, 2, 1))):
        free = [i for i in range(len(sizes[side])) if i not in (*contracted[side], *batched[side])]
        groups = (list(batched[side]), free, list(contracted[side]))
        name = graph.transpose(graph.full(inputs[side], sizes[side]), [i for part in order for i in groups[part]])
        shape = [sizes[side][i] for i in groups[0]]
        for part in order[1:]:
            axes = [sizes[side][i] for i in groups[part]]
            shape.append(axes[0] if len(axes) == 1 else math.prod(axes))
        if any(len(group) != 1 for group in groups[1:]):
            name = graph.reshape(name, shape)
        names.append(name)
        frees.append([sizes[side][i] for i in free])
    product, shape = graph.add("MatMul", *names), equation.outvars[0].aval.shape
    return Value(graph.reshape(product, shape) if any(len(free) != 1 for free in frees) else product, shape)


def _convolution(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    parameters = equation.params
    if parameters["batch_group_count"] != 1 or any(step != 1 for step in parameters["lhs_dilation"]):
        raise InputError(
            "the network has a convolution over groups of the batch, or a transposed one: no form in ONNX."
        )
    images, kernels, results = parameters["dimension_numbers"]
    shapes = [variable.aval.shape for variable in equation.invars]
    kernel = inputs[1]
    if not isinstance(kernel.node, str):
        kernel = constant(np.broadcast_to(kernel.node, shapes[1]).transpose(kernels))
        weights = graph.name(kernel)
    else:
        weights = graph.transpose(graph.full(kernel, shapes[1]), kernels)
    low, high = zip(*parameters["padding"], strict=True)
    if min(*low, *high) < 0:
        raise InputError("the network has a convolution with negative padding, which has no form in ONNX here.")
    convolved = graph.add(
        "Conv",
        graph.transpose(graph.full(inputs[0], shapes[0]), images),
        weights,
        strides=list(parameters["window_strides"]),
        dilations=list(parameters["rhs_dilation"]),
        pads=[*low, *high],
        group=parameters["feature_group_count"],
    )
    return Value(graph.transpose(convolved, np.argsort(results).tolist()), equation.outvars[0].aval.shape)


def _pool(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    """Adds pooling over the windows of two axes; sums are averages times the size of the window."""
    parameters, shape = equation.params, equation.invars[0].aval.shape
    window, steps = parameters["window_dimensions"], parameters["window_strides"]
    pads = parameters["padding"]
    moved = [i for i in range(len(shape)) if window[i] != 1 or steps[i] != 1 or tuple(pads[i]) != (0, 0)]
    spread = {*parameters["base_dilation"], *parameters["window_dilation"]}
    if len(shape) != 4 or len(moved) > 2 or spread != {1}:
        raise InputError("the network pools over other axes than height and width, which has no form in ONNX here.")
    moved += [i for i in (2, 1, 3, 0) if i not in moved][: 2 - len(moved)]
    axes = [i for i in range(4) if i not in moved] + sorted(moved)
    spatial = axes[2:]
    attributes: dict[str, Any] = {
        "kernel_shape": [window[i] for i in spatial],
        "strides": [steps[i] for i in spatial],
        "pads": [pads[i][0] for i in spatial] + [pads[i][1] for i in spatial],
    }
    name = graph.transpose(graph.full(inputs[0], shape), axes)
    if equation.primitive.name == "reduce_window_max":
        name = graph.add("MaxPool", name, **attributes)
    else:
        name = graph.add("AveragePool", name, count_include_pad=1, **attributes)
        name = graph.add("Mul", name, graph.constant(np.float32(math.prod(window))))
    return Value(graph.transpose(name, np.argsort(axes).tolist()), equation.outvars[0].aval.shape)


def _argmax(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    (axis,) = equation.params["axes"]
    name = graph.full(inputs[0], equation.invars[0].aval.shape)
    if equation.invars[0].aval.dtype == np.bool_:
        name = graph.add("Cast", name, to=TensorProto.INT32)
    position = graph.add("ArgMax" if equation.primitive.name == "argmax" else "ArgMin", name, axis=axis, keepdims=0)
    target = helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["index_dtype"]))
    return Value(graph.add("Cast", position, to=target), equation.outvars[0].aval.shape)


def _gather(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    """Adds a lookup of whole slices: the axes in both first, then the looked-up ones, then those taken as a whole."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape, positions = (variable.aval.shape for variable in equation.invars)
    batched, looked_up = list(numbers.operand_batching_dims), list(numbers.start_index_map)
    rest = [i for i in range(len(shape)) if i not in (*batched, *looked_up)]
    whole = all(sizes[i] == shape[i] for i in rest) and all(sizes[i] == 1 for i in looked_up)
    if not whole or sorted((*looked_up, *batched)) != sorted((*numbers.collapsed_slice_dims, *batched)):
        raise InputError("the network looks up parts of several numbers in a row, which has no form in ONNX here.")
    lead = list(numbers.start_indices_batching_dims)
    order = [*lead, *(i for i in range(len(positions)) if i not in lead)]
    data = graph.transpose(graph.full(inputs[0], shape), [*batched, *looked_up, *rest])
    at = graph.transpose(graph.full(inputs[1], positions), order)
    last = np.asarray([shape[i] - 1 for i in looked_up], np.int64)
    at = graph.add("Cast", at, to=TensorProto.INT64)
    # Positions outside take the nearest number; where jax fills instead, that number is replaced afterwards.
    near = graph.add("Min", graph.add("Max", at, graph.integers(0)), graph.constant(last))
    taken = graph.add("GatherND", data, near, batch_dims=len(batched))
    if "FILL" in str(equation.params["mode"]):
        equal = graph.add("Cast", graph.add("Equal", at, near), to=TensorProto.INT32)
        inside = graph.add("Cast", graph.add("ReduceMin", equal, graph.integers(-1), keepdims=0), to=TensorProto.BOOL)
        inside = graph.add("Unsqueeze", inside, graph.integers(*range(-len(rest), 0))) if rest else inside
        fill = equation.params["fill_value"]
        fill = np.nan if fill is None else fill
        taken = graph.add("Where", inside, taken, graph.constant(fill, equation.outvars[0].aval.dtype))
    result = equation.outvars[0].aval.shape
    others = [i for i in range(len(result)) if i not in numbers.offset_dims]  # axes of the positions, then the slice's
    places = [
        others.index(i) if i in others else len(others) + numbers.offset_dims.index(i) for i in range(len(result))
    ]
    back = [order[:-1].index(i) for i in sorted(order[:-1])] if lead else list(range(len(others)))
    places = [back[place] if place < len(others) else place for place in places]
    return Value(graph.transpose(taken, places), result)


OPERATIONS: dict[str, Callable[[Graph, Any, list[Value]], Value | list[Value]]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    "convert_element_type": _convert,
    "square": _square,
    "integer_pow": _integer_pow,
    "rsqrt": _rsqrt,
    "rem": _remainder,
    "log1p": _log1p,
    "expm1": _expm1,
    "ne": _not_equal,
    "clamp": _clamp,
    "select_n": _select,
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": _transpose,
    "slice": _slice,
    "rev": _reverse,
    "split": _split,
    "concatenate": _concatenate,
    "stack": _stack,
    "pad": _pad,
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    **dict.fromkeys(("reduce_window_max", "reduce_window_sum"), _pool),
    **dict.fromkeys(("argmax", "argmin"), _argmax),
    "gather": _gather,
}
