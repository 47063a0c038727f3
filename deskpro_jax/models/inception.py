"""Inception blocks of HACNN: convolutions with bias and BatchNorm, in streams side by side."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from deskpro_jax.models import initialisers, layers


class ConvBlock(nn.Module):
    """Convolution with bias, BatchNorm, ReLU, initialised as PyTorch does.

    `calls` is how many regions the convolution runs on one after the other: each has batch statistics of its own.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    calls: int = 1
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        init = initialisers.uniform_fan_in(self.kernel**2 * x.shape[-1])
        if self.kernel == 1:
            x = layers.Pointwise(self.features, (), True, self.dtype, init, init, name="conv")(x)
        else:
            size, pad = (self.kernel, self.kernel), self.kernel // 2
            x = nn.Conv(
                self.features, size, self.stride, pad, dtype=self.dtype, kernel_init=init, bias_init=init, name="conv"
            )(x)
        norm = layers.BatchNorm(calls=self.calls, dtype=self.dtype, name="bn")
        if self.calls > 1:
            x = jnp.moveaxis(x.reshape(-1, self.calls, *x.shape[1:]), 1, 0)
            x = jnp.moveaxis(norm(x, train=train, valid=valid), 0, 1)
            return nn.relu(x.reshape(-1, *x.shape[2:]))
        return nn.relu(norm(x, train=train, valid=valid))


class InceptionA(nn.Module):
    """Three streams of 1x1 and 3x3 convolutions, and one of average pooling and 1x1; the size stays."""

    features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        unit = functools.partial(ConvBlock, self.features // 4, dtype=self.dtype)
        run = functools.partial(_run, train=train, valid=valid)
        streams = [run(x, unit(name=f"stream{i}_0"), unit(3, name=f"stream{i}_1")) for i in (1, 2, 3)]
        streams.append(run(layers.avg_pool3x3(x), unit(name="stream4_1")))
        return jnp.concatenate(streams, -1)


class InceptionB(nn.Module):
    """Two streams of convolutions and one of max pooling; half the height and width."""

    features: int
    calls: int = 1
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        unit = functools.partial(ConvBlock, self.features // 4, calls=self.calls, dtype=self.dtype)
        run = functools.partial(_run, train=train, valid=valid)
        first = run(x, unit(name="stream1_0"), unit(3, 2, name="stream1_1"))
        second = run(x, unit(name="stream2_0"), unit(3, name="stream2_1"), unit(3, 2, name="stream2_2"))
        pooled = ConvBlock(self.features // 2, calls=self.calls, dtype=self.dtype, name="stream3_1")
        return jnp.concatenate([first, second, run(layers.max_pool3x3(x), pooled)], -1)


def _run(x: Array, *units: nn.Module, train: bool, valid: Array | None) -> Array:
    return functools.reduce(lambda x, unit: unit(x, train=train, valid=valid), units, x)
