"""DeSKPro and OSNet as ONNX nodes: layer by layer in channels-first form, BatchNorms folded into convolutions.

Written by hand because onnxruntime runs it 1.7 times as fast as what `onnx_graph` traces (x1_0, 384x128, 8 photos, two
cores): the traced network has the streams of an OSBlock on an axis of their own, as suits XLA. Both compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deskpro_jax import methods
from deskpro_jax.data.load.augment import MEAN, STD
from deskpro_jax.models.contract import StreamSpec
from deskpro_jax.models.layers import BATCH_NORM_EPS
from deskpro_jax.models.lmbn import PARTS, REDUCED_PARTS
from deskpro_jax.models.osnet import OS_STREAM_DEPTHS, os_stream_names
from deskpro_jax.serving.onnx_graph import IR_VERSION, OPSET, TYPES
from deskpro_jax.serving.program import Input, Program, argument_name
from deskpro_jax.weights import table
from deskpro_jax.weights.deskpro import STREAMS as PREFIXES
from deskpro_jax.weights.lmbn import DESKPRO
from deskpro_jax.weights.load import stream_entries
from deskpro_jax.workdir.export import describe, families_of, networks_by_role


class _Nodes:
    """Nodes and constants under way; each method adds some and returns the name of their value."""

    def __init__(self, tensors: Mapping[str, np.ndarray], streams: str):
        self.tensors, self.streams = tensors, streams
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        value = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [value], name=value, **attributes))
        return value

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        array = np.asarray(value, dtype)
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name

    def weight(self, name: str) -> str:
        self.constants[name] = np.ascontiguousarray(self.tensors[name], np.float32)
        return name

    def conv(self, x: str, name: str, bias: str | None = None, **attributes: Any) -> str:
        inputs = [x, self.weight(f"{name}.weight"), *([] if bias is None else [self.weight(bias)])]
        return self.add("Conv", *inputs, **attributes)

    def unit(self, x: str, name: str, *, linear: bool = False) -> str:
        """ConvUnit: 1x1 convolution with the shift of its BatchNorm, ReLU unless linear."""
        y = self.conv(x, f"{name}.conv", f"{name}.bn.bias")
        return y if linear else self.add("Relu", y)

    def instance_norm(self, x: str, name: str) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("InstanceNormalization", x, scale, bias, epsilon=BATCH_NORM_EPS)

    def light(self, x: str, name: str) -> str:
        y = self.conv(x, f"{name}.conv1")
        channels = len(self.tensors[f"{name}.conv2.weight"])
        y = self.conv(y, f"{name}.conv2", f"{name}.bn.bias", group=channels, pads=[1, 1, 1, 1])
        return self.add("Relu", y)

    def block(self, x: str, name: str) -> str:
        """OSBlock."""
        reduced = self.unit(x, f"{name}.conv1")
        gated = []
        for stream in os_stream_names(self.streams):
            y, depth = reduced, OS_STREAM_DEPTHS[stream]
            for i in range(depth):
                y = self.light(y, f"{name}.conv2{stream}" + (f".{i}" if depth > 1 else ""))
            gate = self.add("GlobalAveragePool", y)
            gate = self.add("Relu", self.conv(gate, f"{name}.gate.fc1", f"{name}.gate.fc1.bias"))
            gate = self.add("Sigmoid", self.conv(gate, f"{name}.gate.fc2", f"{name}.gate.fc2.bias"))
            times = self.streams.count(stream)
            if times > 1:
                gate = self.add("Mul", gate, self.constant(times))
            gated.append(self.add("Mul", y, gate))
        y = gated[0]
        for other in gated[1:]:
            y = self.add("Add", y, other)
        y = self.unit(y, f"{name}.conv3", linear=True)
        if f"{name}.downsample.conv.weight" in self.tensors:
            x = self.unit(x, f"{name}.downsample", linear=True)
        y = self.add("Add", y, x)
        if f"{name}.IN.weight" in self.tensors:
            y = self.instance_norm(y, f"{name}.IN")
        return self.add("Relu", y)

    def halve(self, x: str) -> str:
        return self.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])

    def rows(self, x: str, start: int, stop: int) -> str:
        bounds = [self.constant([value], np.int64) for value in (start, stop, 2)]
        return self.add("Slice", x, *bounds)

    def normalise(self, x: str) -> str:
        """Scales the last axis to unit length as `embedding.normalise` does; zeros stay zeros."""
        axis, zero, one = self.constant([-1], np.int64), self.constant(0), self.constant(1)
        for measure in (self.add("ReduceMax", self.add("Abs", x), axis), None):
            length = measure or self.add("ReduceL2", x, axis)
            x = self.add("Div", x, self.add("Where", self.add("Greater", length, zero), length, one))
        return x


def _stream(nodes: _Nodes, x: str, prefix: str, attention: str, rows: int) -> str:
    """Adds a LightMBN stream: images [batch, 3, H, W] -> embeddings [batch, 7, dimension]; `rows` is H / 16."""
    trunk = f"{prefix}{DESKPRO.trunk}"
    stem = f"{trunk}.0"
    folded = f"{stem}.bn.running_mean" in nodes.tensors
    x = nodes.conv(x, f"{stem}.conv", f"{stem}.bn.bias" if folded else None, pads=[3, 3, 3, 3], strides=[2, 2])
    x = nodes.add("Relu", x if folded else nodes.instance_norm(x, f"{stem}.bn"))
    x = nodes.add("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    x = nodes.block(nodes.block(x, f"{trunk}.2.0"), f"{trunk}.2.1")
    x = nodes.block(nodes.halve(nodes.unit(x, f"{trunk}.2.2.0")), f"{trunk}.3")
    csa = f"{prefix}spatial_attn"
    if attention == "released":
        weights = nodes.conv(nodes.add("Relu", nodes.conv(x, f"{csa}.conv1")), f"{csa}.conv2")
        x = nodes.add("Mul", x, nodes.add("Sigmoid", weights))
    elif attention == "paper":
        x = nodes.add("Mul", x, nodes.add("Sigmoid", nodes.conv(x, f"{csa}.conv", f"{csa}.conv.bias")))
    maps = []
    for branch in DESKPRO.branches:
        y = nodes.block(x, f"{prefix}{branch}.0.1")
        y = nodes.halve(nodes.unit(y, f"{prefix}{branch}.0.2.0"))
        y = nodes.block(nodes.block(y, f"{prefix}{branch}.1.0"), f"{prefix}{branch}.1.1")
        maps.append(nodes.unit(y, f"{prefix}{branch}.2"))
    whole = nodes.block(maps[0], f"{prefix}{DESKPRO.drop_block}")
    pooled = [
        nodes.add("GlobalAveragePool", whole),
        nodes.add("GlobalMaxPool", whole),
        nodes.add("GlobalMaxPool", maps[1]),
        nodes.add("GlobalAveragePool", nodes.rows(maps[1], 0, -(-rows // 2))),
        nodes.add("GlobalAveragePool", nodes.rows(maps[1], rows // 2, rows)),
    ]
    necks = [f"{prefix}{neck}" for neck in DESKPRO.necks]
    parts = [nodes.conv(y, f"{necks[i]}.reduction") for i, y in enumerate(pooled)]
    channels = nodes.add("GlobalAveragePool", maps[2])
    half = nodes.tensors[f"{prefix}{DESKPRO.shared}.0.weight"].shape[1]
    for start in (0, half):
        bounds = [nodes.constant([value], np.int64) for value in (start, start + half, 1)]
        y = nodes.conv(
            nodes.add("Slice", channels, *bounds), f"{prefix}{DESKPRO.shared}.0", f"{prefix}{DESKPRO.shared}.1.bias"
        )
        parts.append(nodes.add("Relu", y))
    assert len(parts) == len(PARTS) == REDUCED_PARTS + 2
    features = nodes.add("Concat", *[nodes.add("Flatten", part) for part in parts], axis=1)
    shape = nodes.constant([-1, len(PARTS), len(nodes.tensors[f"{necks[0]}.bn.weight"])], np.int64)
    factors, shifts = zip(*(_affine(nodes.tensors, f"{neck}.bn") for neck in necks), strict=True)
    features = nodes.add("Mul", nodes.add("Reshape", features, shape), nodes.constant(np.stack(factors)))
    return nodes.add("Add", features, nodes.constant(np.stack(shifts)))


def _affine(tensors: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    scale, bias, mean, var = (
        np.asarray(tensors[f"{name}.{part}"], np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / np.sqrt(var + BATCH_NORM_EPS)
    return factor, bias - mean * factor


def _images(nodes: _Nodes, entry: Input, flip: bool) -> str:
    """Adds what is done to images [batch, H, W, 3] before the network; the mirrored ones follow the others."""
    x = entry.name
    if entry.dtype == "uint8":
        x = nodes.add("Div", nodes.add("Cast", x, to=TensorProto.FLOAT), nodes.constant(255))
        x = nodes.add("Div", nodes.add("Sub", x, nodes.constant(MEAN)), nodes.constant(STD))
    x = nodes.add("Transpose", x, perm=[0, 3, 1, 2])
    if not flip:
        return x
    bounds = [nodes.constant([value], np.int64) for value in (-1, np.iinfo(np.int32).min, 3, -1)]
    return nodes.add("Concat", x, nodes.add("Slice", x, *bounds), axis=0)


def _osnet(nodes: _Nodes, x: str) -> str:
    """Adds a lone OSNet: images [batch, 3, H, W] -> embeddings [batch, 1, dimension]."""
    folded = "conv1.bn.running_mean" in nodes.tensors
    x = nodes.conv(x, "conv1.conv", "conv1.bn.bias" if folded else None, pads=[3, 3, 3, 3], strides=[2, 2])
    x = nodes.add("Relu", x if folded else nodes.instance_norm(x, "conv1.bn"))
    x = nodes.add("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    for stage in ("conv2", "conv3"):
        x = nodes.block(nodes.block(x, f"{stage}.0"), f"{stage}.1")
        x = nodes.halve(nodes.unit(x, f"{stage}.2.0"))
    x = nodes.unit(nodes.block(nodes.block(x, "conv4.0"), "conv4.1"), "conv5")
    weight, bias = nodes.tensors["fc.0.weight"], nodes.tensors["fc.0.bias"]
    pooled = nodes.add("Flatten", nodes.add("GlobalAveragePool", x))
    factor, shift = _affine(nodes.tensors, "fc.1")
    scaled = nodes.constant(weight.T * factor)
    features = nodes.add("Gemm", pooled, scaled, nodes.constant(bias * factor + shift))
    return nodes.add("Unsqueeze", nodes.add("Relu", features), nodes.constant([1], np.int64))


def _tensors(program: Program) -> dict[str, np.ndarray]:
    """Returns the folded variables of the program under their published names."""
    family = families_of(program.loaded)[0]
    tensors: dict[str, np.ndarray] = {}
    for role, (phase, stream) in networks_by_role(program.loaded).items():
        description = describe(program.loaded, role, phase, family)
        variables = program.variables[program.loaded.networks.index(phase.network)]
        own = {collection: tree[f"{stream}_stream"] for collection, tree in variables.items()}
        tensors |= table.dump(stream_entries(family, description, program.loaded.config.model.streams), own)
    return tensors


def _features(nodes: _Nodes, program: Program, stream: StreamSpec, x: str, rows: int) -> str:
    """Adds the network of a stream: images [batch, 3, H, W] -> features [batch, parts, dimension]."""
    model = program.loaded.config.model
    if model.name == "osnet":
        return _osnet(nodes, x)
    role = "body" if stream.name == "body" else program.loaded.face
    return _stream(nodes, x, PREFIXES[role], model.attention if role == "body" else "none", rows)


def knows(program: Program) -> bool:
    """Returns whether the networks of a program are those that this module writes."""
    model = program.loaded.config.model
    return program.folded and model.name in ("deskpro", "osnet") and not methods.other_methods(program.loaded.config)


def build(program: Program) -> onnx.ModelProto:
    """Returns the program as an ONNX model with a batch of any size and the names of `program.inputs`."""
    nodes = _Nodes(_tensors(program), program.loaded.config.model.streams)
    entries_by_name = {entry.name: entry for entry in program.inputs}
    streams = []
    for spec in program.streams:
        entry = entries_by_name[argument_name(spec)]
        x = _features(nodes, program, spec, _images(nodes, entry, program.flip), entry.shape[0] // 16)
        if program.flip:
            shape = nodes.constant([2, -1, len(spec.parts), spec.dim], np.int64)
            x = nodes.add("ReduceSum", nodes.add("Reshape", x, shape), nodes.constant([0], np.int64), keepdims=0)
        x = nodes.normalise(x)
        if spec.reads_face:
            seen = nodes.add("Unsqueeze", "has_face", nodes.constant([1, 2], np.int64))
            x = nodes.add("Where", seen, x, nodes.constant(0))
        streams.append(nodes.add("Flatten", x))
    nodes.nodes.append(helper.make_node("Concat", streams, ["embeddings"], name="embeddings", axis=1))
    graph = helper.make_graph(
        nodes.nodes,
        "embed",
        [helper.make_tensor_value_info(e.name, TYPES[e.dtype], ["batch", *e.shape]) for e in program.inputs],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", program.dimension])],
        [numpy_helper.from_array(array, name) for name, array in nodes.constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="deskpro_jax")
