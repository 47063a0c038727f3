"""Name tables of OSNet's blocks as torchreid calls them."""

from __future__ import annotations

from collections.abc import Iterable

from deskpro_jax.models.osnet import BACKBONES, OS_STREAM_DEPTHS, Backbone, stages
from deskpro_jax.weights.table import Entry, norm

Path = tuple[str, ...]
Index = tuple[int, ...]
_PLAIN = BACKBONES["x1_0"]  # names do not depend on the width


def conv_unit(name: str, path: Path, index: Index = ()) -> Iterable[Entry]:
    """Yields the entries of a 1x1 convolution with BatchNorm (`Conv1x1`, `Conv1x1Linear`)."""
    yield Entry(f"{name}.conv.weight", "params", (*path, "conv", "kernel"), index, "pointwise")
    yield from norm(f"{name}.bn", (*path, "bn"), index)


def os_block(
    name: str, path: Path, index: Index = (), *, streams: str, downsample: bool = False, spec: Backbone = _PLAIN
) -> Iterable[Entry]:
    """Yields the entries of an `OSBlock`; the copy at `index` if the flax block holds several.

    Args:
        name: of the block in PyTorch.
        path: of the block in flax; its last name says which block of `spec` it is.
        index: which copy.
        streams: that the block runs.
        downsample: whether its shortcut has a convolution.
        spec: the network that the block is of.
    """
    kind = spec.block_norm(path[-1])
    yield from conv_unit(f"{name}.conv1", (*path, "conv1"), index)
    for depth, running in enumerate(stages(streams)):
        for slot, stream in enumerate(running):
            light = f"{name}.{_light_conv(stream, depth, spec.norm)}"
            stage, place = (*path, f"stage{depth}"), (*index, slot)
            yield Entry(f"{light}.conv1.weight", "params", (*stage, "pointwise", "kernel"), place, "pointwise")
            yield Entry(f"{light}.conv2.weight", "params", (*stage, "depthwise", "kernel"), place, "depthwise")
            yield from norm(f"{light}.bn", (*stage, "bn"), place)
    for layer in ("fc1", "fc2"):
        yield Entry(f"{name}.gate.{layer}.weight", "params", (*path, "gate", layer, "kernel"), index, "pointwise")
        yield Entry(f"{name}.gate.{layer}.bias", "params", (*path, "gate", layer, "bias"), index)
    if kind == "ain":
        yield Entry(f"{name}.conv3.conv.weight", "params", (*path, "conv3", "kernel"), index, "pointwise")
    else:
        yield from conv_unit(f"{name}.conv3", (*path, "conv3"), index)
    if downsample:
        yield from conv_unit(f"{name}.downsample", (*path, "downsample"), index)
    if kind != "batch":
        yield from norm(f"{name}.IN", (*path, "instance_norm"), index, running=False)


def _light_conv(stream: str, depth: int, norm: str) -> str:
    """Returns the name within its block of the light convolution of `stream` that is `depth` deep."""
    if norm == "ain":
        return f"conv2.{OS_STREAM_DEPTHS[stream] - 1}.layers.{depth}"
    # Stream a is a single light convolution, the others are sequences of them.
    return f"conv2{stream}" + (f".{depth}" if OS_STREAM_DEPTHS[stream] > 1 else "")


def trunk(names: dict[str, str], path: Path, *, streams: str, spec: Backbone = _PLAIN) -> Iterable[Entry]:
    """Yields the entries of the truncated backbone.

    Args:
        names: PyTorch names of "stem", "conv2", "transition2" and "block3_0", which differ between networks.
        path: where the trunk is in flax.
        streams: streams of the blocks.
        spec: which OSNet it is.
    """
    yield Entry(f"{names['stem']}.conv.weight", "params", (*path, "stem", "kernel"), (), "conv")
    yield from norm(f"{names['stem']}.bn", (*path, "stem_norm"), running=spec.norm == "batch")
    for i in range(2):
        block = f"{names['conv2']}.{i}"
        yield from os_block(block, (*path, f"block2_{i}"), streams=streams, downsample=i == 0, spec=spec)
    yield from conv_unit(names["transition2"], (*path, "transition2"))
    yield from os_block(names["block3_0"], (*path, "block3_0"), streams=streams, downsample=True, spec=spec)


def tail(
    names: dict[str, str], path: Path, index: Index = (), *, streams: str, spec: Backbone = _PLAIN
) -> Iterable[Entry]:
    """Yields the entries of the rest: the second block of conv3, its transition, conv4 and conv5.

    Args:
        names: PyTorch names of "block3_1", "transition3", "conv4" and "conv5".
        path: where the tail is in flax.
        index: which copy of a stacked tail.
        streams: streams of the blocks.
        spec: which OSNet it is.
    """
    yield from os_block(names["block3_1"], (*path, "block3_1"), index, streams=streams, spec=spec)
    yield from conv_unit(names["transition3"], (*path, "transition3"), index)
    for i in range(2):
        block, place = f"{names['conv4']}.{i}", (*path, f"block4_{i}")
        yield from os_block(block, place, index, streams=streams, downsample=i == 0, spec=spec)
    yield from conv_unit(names["conv5"], (*path, "conv5"), index)


def osnet(*, streams: str = "abcd", spec: Backbone = _PLAIN) -> list[Entry]:
    """Returns the table of a whole OSNet (torchreid's zoo), for `deskpro_jax.models.osnet.OSNet` without attention."""
    pools = ("pool2.0", "pool3.0") if spec.norm == "ain" else ("conv2.2.0", "conv3.2.0")
    names = {"stem": "conv1", "conv2": "conv2", "transition2": pools[0], "block3_0": "conv3.0"}
    entries = list(trunk(names, ("trunk",), streams=streams, spec=spec))
    names = {"block3_1": "conv3.1", "transition3": pools[1], "conv4": "conv4", "conv5": "conv5"}
    entries += tail(names, ("tail",), streams=streams, spec=spec)
    for layer, module in (("fc.0", "fc"), ("classifier", "classifier")):
        entries.append(Entry(f"{layer}.weight", "params", (module, "kernel"), (), "linear"))
        entries.append(Entry(f"{layer}.bias", "params", (module, "bias")))
    entries += norm("fc.1", ("fc_norm",))
    return entries
