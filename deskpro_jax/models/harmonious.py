"""Harmonious attention of HACNN: soft attention to pixels and channels, hard attention to four regions.

Li, Zhu and Gong, Harmonious Attention Network for Person Re-Identification, CVPR 2018, section 3.1.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.models import initialisers, layers, sampling
from deskpro_jax.models.inception import ConvBlock

REGIONS = 4
_SHIFTS = (0.0, -0.75, 0.0, -0.25, 0.0, 0.25, 0.0, 0.75)  # x and y of each region before the first step


class SpatialAttn(nn.Module):
    """Where to look: one map, from the mean over the channels (section 3.1, I.1)."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Float[Array, "batch height width 1"]:
        size = x.shape[1], x.shape[2]
        x = x.mean(-1, keepdims=True)
        x = ConvBlock(1, 3, 2, dtype=self.dtype, name="conv1")(x, train=train, valid=valid)
        x = sampling.resize(x, size)
        return ConvBlock(1, dtype=self.dtype, name="conv2")(x, train=train, valid=valid)


class ChannelAttn(nn.Module):
    """What to look for: one weight for each channel, from the global average (section 3.1, I.2)."""

    reduction: int = 16
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Float[Array, "batch 1 1 channels"]:
        channels = x.shape[-1]
        x = x.mean((1, 2), keepdims=True)
        x = ConvBlock(channels // self.reduction, dtype=self.dtype, name="conv1")(x, train=train, valid=valid)
        return ConvBlock(channels, dtype=self.dtype, name="conv2")(x, train=train, valid=valid)


class SoftAttn(nn.Module):
    """Attention in [0.5, 1) for each pixel and channel: the ReLU before the sigmoid is the code's, not the paper's."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        spatial = SpatialAttn(self.dtype, name="spatial_attn")(x, train=train, valid=valid)
        channel = ChannelAttn(dtype=self.dtype, name="channel_attn")(x, train=train, valid=valid)
        both = ConvBlock(x.shape[-1], dtype=self.dtype, name="conv")(spatial * channel, train=train, valid=valid)
        return nn.sigmoid(both)


class HardAttn(nn.Module):
    """Where each region lies: its shift (x, y) from -1 to 1 (section 3.1, II)."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "batch regions 2"]:
        bias = initialisers.fixed(_SHIFTS)
        fc = layers.Pointwise(2 * REGIONS, (), True, self.dtype, initialisers.constant(0.0), bias, name="fc")
        return jnp.tanh(fc(x.mean((1, 2), keepdims=True))).reshape(-1, REGIONS, 2)


class HarmAttn(nn.Module):
    """Harmonious attention: soft attention, and the shifts of the regions (section 3.1)."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> tuple[Array, Array]:
        soft = SoftAttn(self.dtype, name="soft_attn")(x, train=train, valid=valid)
        return soft, HardAttn(self.dtype, name="hard_attn")(x)
