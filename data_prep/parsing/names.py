"""Name table of SCHP's official state dicts."""

from __future__ import annotations

from collections.abc import Iterable

from data_prep.parsing.backbone import LAYERS, STEM
from data_prep.parsing.model import BINS
from deskpro_jax.weights.table import Entry, norm

Path = tuple[str, ...]
Index = tuple[int, ...]


def _conv(name: str, path: Path, kind: str, index: Index = (), *, bias: bool = False) -> Iterable[Entry]:
    yield Entry(f"{name}.weight", "params", (*path, "kernel"), index, kind)
    if bias:
        yield Entry(f"{name}.bias", "params", (*path, "bias"), index)


def _conv_norm(conv: str, norm_name: str, path: Path) -> Iterable[Entry]:
    yield from _conv(conv, (*path, "conv"), "pointwise")
    yield from norm(norm_name, (*path, "norm"))


def _bottleneck(name: str, path: Path, index: Index, *, first: bool) -> Iterable[Entry]:
    for i, kind in enumerate(("pointwise", "conv", "pointwise"), 1):
        yield from _conv(f"{name}.conv{i}", (*path, f"conv{i}"), kind, index)
        yield from norm(f"{name}.bn{i}", (*path, f"norm{i}"), index)
    if first:
        yield from _conv(f"{name}.downsample.0", (*path, "downsample"), "pointwise", index)
        yield from norm(f"{name}.downsample.1", (*path, "downsample_norm"), index)


def backbone(path: Path) -> Iterable[Entry]:
    """Yields the entries of the backbone, found at `path` in flax."""
    for i in range(1, len(STEM) + 1):
        yield from _conv(f"conv{i}", (*path, f"conv{i}"), "conv")
        yield from norm(f"bn{i}", (*path, f"norm{i}"))
    for name, layer in LAYERS.items():
        yield from _bottleneck(f"{name}.0", (*path, name, "first"), (), first=True)
        for i in range(1, layer.blocks):
            yield from _bottleneck(f"{name}.{i}", (*path, name, "rest"), (i - 1,), first=False)


def schp() -> list[Entry]:
    """Returns the table of a whole parser, for `data_prep.parsing.model.SCHP` with any number of classes."""
    entries = list(backbone(("backbone",)))
    for i in range(len(BINS)):
        stage = f"context_encoding.stages.{i}"
        entries += _conv_norm(f"{stage}.1", f"{stage}.2", ("pyramid", f"stage{i}"))
    entries += _conv("context_encoding.bottleneck.0", ("pyramid",), "conv")
    entries += norm("context_encoding.bottleneck.1", ("pyramid", "norm"))
    for i in (1, 2, 3):
        entries += _conv_norm(f"edge.conv{i}.0", f"edge.conv{i}.1", ("edge", f"conv{i}"))
    entries += _conv("edge.conv4", ("edge", "conv4"), "conv", bias=True)
    entries += _conv("edge.conv5", ("edge", "conv5"), "pointwise", bias=True)
    for name, place in (("conv1", "conv1"), ("conv2", "conv2")):
        entries += _conv_norm(f"decoder.{name}.0", f"decoder.{name}.1", ("decoder", place))
    entries += _conv_norm("decoder.conv3.0", "decoder.conv3.1", ("decoder", "conv3_0"))
    entries += _conv_norm("decoder.conv3.2", "decoder.conv3.3", ("decoder", "conv3_1"))
    entries += _conv("decoder.conv4", ("decoder", "conv4"), "pointwise", bias=True)
    entries += _conv_norm("fushion.0", "fushion.1", ("fusion",))  # spelt so in the files
    entries += _conv("fushion.3", ("classifier",), "pointwise", bias=True)
    return entries
