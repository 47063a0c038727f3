"""Backbones in place of OSNet and ResNet-50 that compile quickly: `model.backbone` is TINY, SHORT or TINY_RESNET.

Maps have the sizes that OSNet's have: attention, branches, parts, losses and all that is around the network are real.
TINY is a handful of small matrix products. SHORT has each kind of OSNet's layers once: stem, pooling, 1x1 convolutions
with and without groups, an OSBlock (LightMBN's own, before the top-drop block). TINY_RESNET is a ResNet of one narrow
bottleneck per layer.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from deskpro_jax.models import layers
from deskpro_jax.models.osnet import Backbone, ConvUnit
from deskpro_jax.models.resnet import ResNetBackbone

TINY = "small_backbones:TINY_BACKBONE"
SHORT = "small_backbones:SHORT_BACKBONE"
TINY_RESNET = "small_backbones:TINY_RESNET_BACKBONE"


class TinyTrunk(nn.Module):
    """The means of 8x8 pixels and one matrix product: [B, H, W, 3] -> [B, H/8, W/8, features]."""

    features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        batch, height, width, colours = x.shape
        means = x.reshape(batch, height // 8, 8, width // 8, 8, colours).mean((2, 4))
        return ConvUnit(self.features, dtype=self.dtype, name="unit")(means, train=train, valid=valid)


class ShortTrunk(nn.Module):
    """Stem, pooling and a transition: [B, H, W, 3] -> [B, H/8, W/8, features]."""

    stem: int
    features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        x = layers.StemConv(self.stem, dtype=self.dtype, name="stem")(x)
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="stem_norm")(x, train=train, valid=valid))
        x = layers.avg_pool2x2(layers.max_pool3x3(x))
        return ConvUnit(self.features, dtype=self.dtype, name="transition2")(x, train=train, valid=valid)


class Tail(nn.Module):
    """One matrix product on maps of half the size, in as many copies as `groups` says."""

    features: int
    groups: tuple[int, ...] = ()
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        unit = ConvUnit(self.features, self.groups, dtype=self.dtype, name="conv5")
        return unit(layers.avg_pool2x2(x), train=train, valid=valid)


TINY_BACKBONE = Backbone(
    (8, 8, 8, 16),
    trunk=lambda spec, streams, dtype, name: TinyTrunk(spec.channels[2], dtype, name=name),
    tail=lambda spec, groups, streams, dtype, name: Tail(spec.channels[3], groups, dtype, name=name),
    block=lambda features, groups, streams, dtype, name: ConvUnit(features, groups, dtype=dtype, name=name),
)
SHORT_BACKBONE = Backbone(
    (16, 64, 96, 128),
    trunk=lambda spec, streams, dtype, name: ShortTrunk(spec.channels[0], spec.channels[2], dtype, name=name),
    tail=lambda spec, groups, streams, dtype, name: Tail(spec.channels[3], groups, dtype, name=name),
)
TINY_RESNET_BACKBONE = ResNetBackbone((1, 1, 1, 1), width=4)
