"""Name tables of RetinaFace as its published PyTorch code calls its tensors (biubug6/Pytorch_Retinaface)."""

from __future__ import annotations

from collections.abc import Iterable

from data_prep.detection.model import HEADS, MOBILENET_STAGES, RESNET_BLOCKS, STRIDES
from deskpro_jax.weights.table import Entry, norm

Path = tuple[str, ...]
# The published code writes a small x in the last name alone.
_CONTEXT = {
    "conv3X3": "conv3x3",
    "conv5X5_1": "conv5x5_1",
    "conv5X5_2": "conv5x5_2",
    "conv7X7_2": "conv7x7_2",
    "conv7x7_3": "conv7x7_3",
}


def _unit(conv: str, bn: str, path: Path, kind: str = "conv") -> Iterable[Entry]:
    yield Entry(f"{conv}.weight", "params", (*path, "kernel"), (), kind)
    yield from norm(bn, (*path, "bn"))


def _mobilenet() -> Iterable[Entry]:
    yield from _unit("body.stage1.0.0", "body.stage1.0.1", ("body", "stem"))
    for i, stage in enumerate(MOBILENET_STAGES, 1):
        for j in range(len(stage)):
            # In PyTorch the first stage counts the stem as its block 0.
            name, place = f"body.stage{i}.{j + (i == 1)}", f"stage{i}_{j}"
            yield from _unit(f"{name}.0", f"{name}.1", ("body", f"{place}_depthwise"), "depthwise")
            yield from _unit(f"{name}.3", f"{name}.4", ("body", f"{place}_pointwise"), "pointwise")


def _resnet() -> Iterable[Entry]:
    yield from _unit("body.conv1", "body.bn1", ("body", "stem"))
    for i, blocks in enumerate(RESNET_BLOCKS, 1):
        for j in range(blocks):
            name, path = f"body.layer{i}.{j}", ("body", f"layer{i}_{j}")
            for layer, kind in ((1, "pointwise"), (2, "conv"), (3, "pointwise")):
                yield from _unit(f"{name}.conv{layer}", f"{name}.bn{layer}", (*path, f"conv{layer}"), kind)
            if j == 0:
                yield from _unit(f"{name}.downsample.0", f"{name}.downsample.1", (*path, "downsample"), "pointwise")


def retinaface(variant: str) -> list[Entry]:
    """Returns the table of a whole detector; `variant` as in `data_prep.detection.model.VARIANTS`."""
    entries = list(_mobilenet() if variant == "mobilenet0.25" else _resnet())
    levels = range(1, len(STRIDES) + 1)
    for i in levels:
        entries += _unit(f"fpn.output{i}.0", f"fpn.output{i}.1", ("fpn", f"output{i}"), "pointwise")
    for i in levels[:-1]:
        entries += _unit(f"fpn.merge{i}.0", f"fpn.merge{i}.1", ("fpn", f"merge{i}"))
    for i in levels:
        for name, place in _CONTEXT.items():
            entries += _unit(f"ssh{i}.{name}.0", f"ssh{i}.{name}.1", (f"ssh{i}", place))
    for head in HEADS:
        for i in range(len(STRIDES)):
            name, place = f"{head}.{i}.conv1x1", f"{head}_{i}"
            entries.append(Entry(f"{name}.weight", "params", (place, "kernel"), (), "pointwise"))
            entries.append(Entry(f"{name}.bias", "params", (place, "bias")))
    return entries
