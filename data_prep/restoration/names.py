"""Name table of GPEN as its published PyTorch code calls its tensors (yangxy/GPEN), and its sizes from their shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from data_prep.restoration.model import SMALLEST, Architecture
from deskpro_jax.weights.table import Entry

Path = tuple[str, ...]
_ENCODER = re.compile(r"ecd(\d+)\.0\.\d+\.weight")
_MAPPING = re.compile(r"generator\.style\.(\d+)\.weight")
_LARGEST = 4096  # pixels; the largest published network has 2048


def _linear(name: str, path: Path) -> Iterable[Entry]:
    yield Entry(f"{name}.weight", "params", (*path, "kernel"), (), "linear")
    yield Entry(f"{name}.bias", "params", (*path, "bias"))


def _modulated(name: str, path: Path) -> Iterable[Entry]:
    yield Entry(f"{name}.weight", "params", (*path, "kernel"), (), "modulated")
    yield from _linear(f"{name}.modulation", (*path, "modulation"))


def _styled(name: str, place: str, *, upsample: bool = False) -> Iterable[Entry]:
    yield from _modulated(f"{name}.conv", (place, "conv"))
    if upsample:
        yield Entry(f"{name}.conv.blur.kernel", "buffers", (place, "conv", "blur", "kernel"))
    yield Entry(f"{name}.noise.weight", "params", (place, "noise"))
    yield Entry(f"{name}.activate.bias", "params", (place, "bias"))


def _to_rgb(name: str, place: str, *, upsample: bool = True) -> Iterable[Entry]:
    yield Entry(f"{name}.bias", "params", (place, "bias"), (), "nchw")
    if upsample:
        yield Entry(f"{name}.upsample.kernel", "buffers", (place, "upsample", "kernel"))
    yield from _modulated(f"{name}.conv", (place, "conv"))


def gpen(architecture: Architecture) -> list[Entry]:
    """Returns the table of a whole restorer."""
    entries: list[Entry] = []
    for i in range(architecture.mapping_layers):
        entries += _linear(f"generator.style.{i + 1}", (f"mapping_{i}",))
    entries.append(Entry("generator.input.input", "params", ("start",), (), "nchw"))
    entries += _styled("generator.conv1", "conv_0")
    entries += _to_rgb("generator.to_rgb1", "rgb_0", upsample=False)
    for level in range(1, len(architecture.channels)):
        entries += _styled(f"generator.convs.{2 * level - 2}", f"up_{level}", upsample=True)
        entries += _styled(f"generator.convs.{2 * level - 1}", f"conv_{level}")
        entries += _to_rgb(f"generator.to_rgbs.{level - 1}", f"rgb_{level}")
    for i in range(len(architecture.channels)):
        first = 1 if i > 0 else 0  # behind the filter
        if i > 0:
            entries.append(Entry(f"ecd{i}.0.0.kernel", "buffers", (f"encoder_{i}", "blur", "kernel")))
        entries.append(Entry(f"ecd{i}.0.{first}.weight", "params", (f"encoder_{i}", "kernel"), (), "conv"))
        entries.append(Entry(f"ecd{i}.0.{first + 1}.bias", "params", (f"encoder_{i}", "bias")))
    entries += _linear("final_linear.0", ("encoder_end",))
    return entries


def recognise(tensors: Mapping[str, np.ndarray]) -> Architecture | None:
    """Returns the sizes of the GPEN that tensors belong to, None where they are no GPEN's.

    Args:
        tensors: by the names of the published code; only the shapes that decide the sizes are read.
    """
    stages = {int(match[1]): np.shape(value) for name, value in tensors.items() if (match := _ENCODER.fullmatch(name))}
    layers = sum(_MAPPING.fullmatch(name) is not None for name in tensors)
    ends = np.shape(tensors.get("final_linear.0.weight", ()))
    levels = len(stages)
    whole = sorted(stages) == list(range(levels)) and 1 < levels <= (_LARGEST // SMALLEST).bit_length()
    shaped = len(ends) == 2 and all(len(shape) == 4 and 0 not in shape for shape in (*stages.values(), (*ends, 1, 1)))
    if not whole or not layers or not shaped:
        return None
    return Architecture(tuple(stages[i][0] for i in range(levels)), ends[0], layers)
