"""Name tables of OSNet's blocks as torchreid calls them."""

from __future__ import annotations

from collections.abc import Iterable

from deskpro_jax.models.osnet import OS_STREAM_DEPTHS, stages
from deskpro_jax.weights.table import Entry, norm

Path = tuple[str, ...]
Index = tuple[int, ...]


def conv_unit(name: str, path: Path, index: Index = ()) -> Iterable[Entry]:
    """Yields the entries of a 1x1 convolution with BatchNorm (`Conv1x1`, `Conv1x1Linear`)."""
    yield Entry(f"{name}.conv.weight", "params", (*path, "conv", "kernel"), index, "pointwise")
    yield from norm(f"{name}.bn", (*path, "bn"), index)


def os_block(
    name: str, path: Path, index: Index = (), *, streams: str, downsample: bool = False, instance_norm: bool = False
) -> Iterable[Entry]:
    """Yields the entries of an `OSBlock`; the copy at `index` if the flax block holds several."""
    yield from conv_unit(f"{name}.conv1", (*path, "conv1"), index)
    for depth, running in enumerate(stages(streams)):
        for slot, stream in enumerate(running):
            # Stream a is a single light convolution, the others are sequences of them.
            light = f"{name}.conv2{stream}" + (f".{depth}" if OS_STREAM_DEPTHS[stream] > 1 else "")
            stage, place = (*path, f"stage{depth}"), (*index, slot)
            yield Entry(f"{light}.conv1.weight", "params", (*stage, "pointwise", "kernel"), place, "pointwise")
            yield Entry(f"{light}.conv2.weight", "params", (*stage, "depthwise", "kernel"), place, "depthwise")
            yield from norm(f"{light}.bn", (*stage, "bn"), place)
    for layer in ("fc1", "fc2"):
        yield Entry(f"{name}.gate.{layer}.weight", "params", (*path, "gate", layer, "kernel"), index, "pointwise")
        yield Entry(f"{name}.gate.{layer}.bias", "params", (*path, "gate", layer, "bias"), index)
    yield from conv_unit(f"{name}.conv3", (*path, "conv3"), index)
    if downsample:
        yield from conv_unit(f"{name}.downsample", (*path, "downsample"), index)
    if instance_norm:
        yield from norm(f"{name}.IN", (*path, "instance_norm"), index, running=False)


def trunk(names: dict[str, str], path: Path, *, streams: str, instance_norm: bool = False) -> Iterable[Entry]:
    """Yields the entries of the truncated backbone.

    Args:
        names: PyTorch names of "stem", "conv2" and "block3_0", which differ between OSNet and LightMBN.
        path: where the trunk is in flax.
        streams: streams of the blocks.
        instance_norm: whether it is the ibn variant.
    """
    stem, second = names["stem"], names["conv2"]
    yield Entry(f"{stem}.conv.weight", "params", (*path, "stem", "kernel"), (), "conv")
    yield from norm(f"{stem}.bn", (*path, "stem_norm"), running=not instance_norm)
    for i in range(2):
        yield from os_block(
            f"{second}.{i}",
            (*path, f"block2_{i}"),
            streams=streams,
            downsample=i == 0,
            instance_norm=instance_norm,
        )
    yield from conv_unit(f"{second}.2.0", (*path, "transition2"))
    yield from os_block(names["block3_0"], (*path, "block3_0"), streams=streams, downsample=True)


def tail(names: dict[str, str], path: Path, index: Index = (), *, streams: str) -> Iterable[Entry]:
    """Yields the entries of the rest: the second block of conv3, its transition, conv4 and conv5.

    Args:
        names: PyTorch names of "block3_1", "transition3", "conv4" and "conv5".
        path: where the tail is in flax.
        index: which copy of a stacked tail.
        streams: streams of the blocks.
    """
    yield from os_block(names["block3_1"], (*path, "block3_1"), index, streams=streams)
    yield from conv_unit(names["transition3"], (*path, "transition3"), index)
    for i in range(2):
        block = f"{names['conv4']}.{i}"
        yield from os_block(block, (*path, f"block4_{i}"), index, streams=streams, downsample=i == 0)
    yield from conv_unit(names["conv5"], (*path, "conv5"), index)


def osnet(*, streams: str = "abcd", instance_norm: bool = False) -> list[Entry]:
    """Returns the table of a whole OSNet (torchreid's zoo), for `deskpro_jax.models.osnet.OSNet`."""
    entries = list(
        trunk(
            {"stem": "conv1", "conv2": "conv2", "block3_0": "conv3.0"},
            ("trunk",),
            streams=streams,
            instance_norm=instance_norm,
        )
    )
    names = {"block3_1": "conv3.1", "transition3": "conv3.2.0", "conv4": "conv4", "conv5": "conv5"}
    entries += tail(names, ("tail",), streams=streams)
    for layer, module in (("fc.0", "fc"), ("classifier", "classifier")):
        entries.append(Entry(f"{layer}.weight", "params", (module, "kernel"), (), "linear"))
        entries.append(Entry(f"{layer}.bias", "params", (module, "bias")))
    entries += norm("fc.1", ("fc_norm",))
    return entries
