"""Script and module of test_sharded.py: DeSKPro with one OSBlock a stream in place of seven, to be compiled quickly.

Every kind of layer is still there: stem, pooling, 1x1 convolutions alone and in groups, CSA, an OSBlock, the heads.
As a script it is the command line of deskpro_jax.main with that network. Arguments: the file that gets, when it ends,
the names of the training images that this process read, one a read; SIGNAL PHASE STEP as of interrupted.py, or "-" for
none; then those of deskpro_jax.main.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax.numpy as jnp
from absl import app
from jaxtyping import Array

import interrupted
from deskpro_jax.cli import train as main
from deskpro_jax.data.load import dataset
from deskpro_jax.data.schema import Example
from deskpro_jax.models import layers, lmbn
from deskpro_jax.models.osnet import Backbone, ConvUnit


class Trunk(nn.Module):
    """The trunk without an OSBlock: maps at an eighth of the images' size."""

    backbone: Backbone
    streams: str = "abcd"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        stem, _, third, _ = self.backbone.channels
        x = layers.StemConv(stem, dtype=self.dtype, name="stem")(x)
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="stem_norm")(x, train=train, valid=valid))
        x = layers.avg_pool2x2(layers.max_pool3x3(x))
        return ConvUnit(third, dtype=self.dtype, name="transition2")(x, train=train, valid=valid)


class Tail(nn.Module):
    """The tails without an OSBlock; the one that stays is LightMBN's own, before the top-drop block."""

    backbone: Backbone
    groups: tuple[int, ...] = ()
    streams: str = "abcd"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        convolution = ConvUnit(self.backbone.channels[3], self.groups, dtype=self.dtype, name="conv5")
        return convolution(layers.avg_pool2x2(x), train=train, valid=valid)


def shorten() -> None:
    """Makes every DeSKPro of this process a short one."""
    mock.patch.multiple(lmbn, Trunk=Trunk, Tail=Tail).start()


def record_reads() -> list[str]:
    """Returns a list that grows by the name of every image of a training split that this process reads."""
    names: list[str] = []
    read = dataset.ReIDSplit.__getitem__

    def counted(split: dataset.ReIDSplit, index: int) -> Example:
        if split.split == "train":
            names.append(split.image_id[index])
        return read(split, index)

    mock.patch.object(dataset.ReIDSplit, "__getitem__", counted).start()
    return names


def run(file: Path, arguments: list[str]) -> None:
    """Runs the command line, and writes what was read however it ends."""
    shorten()
    names = record_reads()
    try:
        if arguments[0] == "-":
            app.run(main.main, ["main", *arguments[1:]], flags_parser=main.parse_flags)
        else:
            interrupted.run(arguments[0], arguments[1], int(arguments[2]), arguments[3:])
    finally:
        file.write_text("\n".join(names), encoding="utf-8")


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
