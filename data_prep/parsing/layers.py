"""Convolutions and norms of SCHP, as they run when nothing is trained any more."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from data_prep.parsing.interpolation import resize
from deskpro_jax.models.layers import Dtype, at_least_float32

NORM_EPS = 1e-5
LEAKINESS = 0.01
# A float32 network computes in float32 everywhere: accelerators would round the factors of products to 10 or 7 bits.
PRECISION = jax.lax.Precision.HIGHEST

Activation = Callable[[Array], Array]


def leaky_relu(x: Array) -> Array:
    """Leaky ReLU of slope 0.01."""
    return nn.leaky_relu(x, LEAKINESS)


def linear(x: Array) -> Array:
    """Leaves its input as it is."""
    return x


class Norm(nn.Module):
    """InPlaceABN (Rota Bulo et al., CVPR 2018) with stored statistics, and the activation behind it.

    y = activation((x - mean) / sqrt(var + 1e-5) * (|scale| + 1e-5) + bias): unlike BatchNorm's, the scale counts by its
    size and is never zero.
    """

    activation: Activation = linear
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        shape = (x.shape[-1],)
        kept = at_least_float32(x.dtype)
        scale = self.param("scale", nn.initializers.ones, shape).astype(kept)
        bias = self.param("bias", nn.initializers.zeros, shape).astype(kept)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value.astype(kept)
        var = self.variable("batch_stats", "var", jnp.ones, shape).value.astype(kept)
        factor = (jnp.abs(scale) + NORM_EPS) * jax.lax.rsqrt(var + NORM_EPS)
        return self.activation(x.astype(kept) * factor + (bias - mean * factor)).astype(self.dtype)


class Conv3x3(nn.Module):
    """3x3 convolution with zero padding that keeps the size, apart from its stride."""

    features: int
    stride: int = 1
    dilation: int = 1
    use_bias: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], self.features))
        y = conv3x3(x, kernel, self.stride, self.dilation, self.dtype)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(y.dtype)
        return y


def conv3x3(x: Array, kernel: Array, stride: int, dilation: int, dtype: Dtype) -> Array:
    """Convolves maps [batch, height, width, channels] with a kernel [3, 3, channels, features], zeros around them."""
    return jax.lax.conv_general_dilated(
        x.astype(dtype),
        kernel.astype(dtype),
        window_strides=(stride, stride),
        padding=((dilation, dilation),) * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=PRECISION,
    )


class Conv1x1(nn.Module):
    """1x1 convolution of one map, or of several as if they lay side by side in channels.

    Of several, each is convolved at its own size and the products are enlarged to the largest map's and added:
    enlarging mixes pixels and a 1x1 convolution channels, so that either may come first, and this is the cheaper order.
    """

    features: int
    use_bias: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, *maps: Float[Array, "batch _ _ _"]) -> Float[Array, "batch height width features"]:
        channels = [x.shape[-1] for x in maps]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (sum(channels), self.features))
        parts = jnp.split(kernel.astype(self.dtype), np.cumsum(channels)[:-1])
        height, width = (max(x.shape[axis] for x in maps) for axis in (1, 2))
        products = [
            resize(jnp.matmul(x.astype(self.dtype), part, precision=PRECISION), height, width)
            for x, part in zip(maps, parts, strict=True)
        ]
        y = functools.reduce(jnp.add, products)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y
