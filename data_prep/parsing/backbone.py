"""ResNet-101 as SCHP uses it: three small convolutions in place of the large first one, output stride 16."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from data_prep.parsing.layers import Conv1x1, Conv3x3, Norm
from deskpro_jax.models.layers import Dtype, max_pool3x3

EXPANSION = 4  # channels of a block's output for one of its middle


@dataclass(frozen=True)
class Layer:
    """One of the four stages: blocks, channels in their middle, stride of the first, dilation of all."""

    blocks: int
    middle: int
    stride: int = 1
    dilation: int = 1


STEM = ((64, 2), (64, 1), (128, 1))  # channels and stride
LAYERS = {
    "layer1": Layer(3, 64),
    "layer2": Layer(4, 128, stride=2),
    "layer3": Layer(23, 256, stride=2),
    "layer4": Layer(3, 512, dilation=2),
}


class ResidualBlock(nn.Module):
    """Residual block of a 1x1, a 3x3 (with the stride) and a 1x1 convolution."""

    layer: Layer
    first: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        stride = self.layer.stride if self.first else 1
        middle, out = self.layer.middle, EXPANSION * self.layer.middle
        y = Conv1x1(middle, dtype=self.dtype, name="conv1")(x)
        y = Norm(nn.relu, self.dtype, name="norm1")(y)
        y = Conv3x3(middle, stride, self.layer.dilation, dtype=self.dtype, name="conv2")(y)
        y = Norm(nn.relu, self.dtype, name="norm2")(y)
        y = Norm(dtype=self.dtype, name="norm3")(Conv1x1(out, dtype=self.dtype, name="conv3")(y))
        if self.first:
            x = Conv1x1(out, dtype=self.dtype, name="downsample")(x[:, ::stride, ::stride])
            x = Norm(dtype=self.dtype, name="downsample_norm")(x)
        return nn.relu(y + x)


class ResidualStage(nn.Module):
    """One stage: a first block of its own, and the rest, all alike, as a loop over stacked parameters.

    The program then has eight blocks to compile in place of thirty-three.
    """

    layer: Layer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        x = ResidualBlock(self.layer, first=True, dtype=self.dtype, name="first")(x)
        loop = nn.scan(
            lambda block, carry, _: (block(carry), None),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=self.layer.blocks - 1,
        )
        return loop(ResidualBlock(self.layer, dtype=self.dtype, name="rest"), x, None)[0]


class ResNet101(nn.Module):
    """The stem and the four stages."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width 3"]) -> dict[str, Array]:
        """Returns by name the maps behind the pooling ("maxpool", stride 4) and each stage (strides 4, 8, 16, 16)."""
        for i, (features, stride) in enumerate(STEM, 1):
            x = Conv3x3(features, stride, dtype=self.dtype, name=f"conv{i}")(x)
            x = Norm(nn.relu, self.dtype, name=f"norm{i}")(x)
        maps = {"maxpool": max_pool3x3(x)}
        x = maps["maxpool"]
        for name, layer in LAYERS.items():
            x = maps[name] = ResidualStage(layer, self.dtype, name=name)(x)
        return maps
