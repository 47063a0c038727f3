"""Layers of StyleGAN2 in GPEN's form: equalised linear maps and convolutions, modulated convolutions, RGB outputs.

Parameters hold the values of the published files; the scales that make learning rates equal are applied here.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from data_prep.restoration.ops import fused_leaky_relu, upfirdn2d
from deskpro_jax.models.layers import Dtype, at_least_float32

DEMODULATION_EPS = 1e-8
FEATURES = 2  # as many channels again come from the encoder, after every styled convolution
# On accelerators the default precision of float32 products is below float32.
PRECISION = jax.lax.Precision.HIGHEST
_NHWC = ("NHWC", "HWIO", "NHWC")
_TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64
_normal, _zeros, _ones = nn.initializers.normal(1.0), nn.initializers.zeros, nn.initializers.ones


class BlurFilter(nn.Module):
    """The fixed low-pass filter around resampling; files carry it with their weights."""

    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"], *, up: int = 1, pad: tuple[int, int]) -> Array:
        kernel = self.variable("buffers", "kernel", lambda: jnp.asarray(_TAPS * self.gain))
        return upfirdn2d(x, kernel.value, up=up, pad=pad)


class EqualLinear(nn.Module):
    """Linear map whose weights are scaled by `rate` / sqrt(inputs), with or without the fused activation."""

    features: int
    rate: float = 1.0
    activate: bool = False
    bias: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch features"]:
        inputs = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.normal(1.0 / self.rate), (inputs, self.features))
        bias = self.param("bias", nn.initializers.constant(self.bias), (self.features,)) * self.rate
        weights = (kernel * (self.rate / inputs**0.5)).astype(self.dtype)
        y = jnp.matmul(x.astype(self.dtype), weights, precision=PRECISION)
        return fused_leaky_relu(y, bias) if self.activate else y + bias.astype(self.dtype)


class EncoderStage(nn.Module):
    """Convolution and activation; a downsampling one is 3x3 with stride 2 behind a low-pass filter, else 1x1."""

    features: int
    downsample: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        x = x.astype(self.dtype)
        size, stride = (3, 2) if self.downsample else (1, 1)
        if self.downsample:
            x = BlurFilter(name="blur")(x, pad=(2, 2))
        kernel = self.param("kernel", _normal, (size, size, x.shape[-1], self.features))
        bias = self.param("bias", _zeros, (self.features,))
        weights = (kernel / (size * size * x.shape[-1]) ** 0.5).astype(self.dtype)
        y = jax.lax.conv_general_dilated(
            x, weights, (stride, stride), "VALID", dimension_numbers=_NHWC, precision=PRECISION
        )
        return fused_leaky_relu(y, bias)


class ModulatedConv(nn.Module):
    """Convolution whose weights are scaled for each image by its style and then brought back to unit length.

    The scales are moved out of the weights: scaling the input by the style and the output by the demodulation is the
    same sum, and leaves one ordinary convolution for the whole batch in place of one an image.
    """

    features: int
    size: int = 3
    demodulate: bool = True
    upsample: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"], latent: Float[Array, "batch style"]) -> Array:
        """Convolves.

        Args:
            x: feature maps.
            latent: one style vector an image.

        Returns:
            Feature maps of `features` channels, twice as large if `upsample`.

        Source:
            Karras et al., CVPR 2020 (StyleGAN2), equations 1 and 3.
        """
        inputs = x.shape[-1]
        style = EqualLinear(inputs, bias=1.0, dtype=at_least_float32(self.dtype), name="modulation")(latent)
        kernel = self.param("kernel", _normal, (1, self.size, self.size, inputs, self.features))[0]
        kernel = kernel / (self.size * self.size * inputs) ** 0.5
        weights = kernel.astype(self.dtype)
        x = x.astype(self.dtype) * style.astype(self.dtype)[:, None, None]
        if self.upsample:
            # A transposed convolution of stride 2, then the low-pass filter over its checkerboard.
            x = jax.lax.conv_general_dilated(
                x,
                weights[::-1, ::-1],
                (1, 1),
                [(self.size - 1, self.size - 1)] * 2,
                lhs_dilation=(2, 2),
                dimension_numbers=_NHWC,
                precision=PRECISION,
            )
            x = BlurFilter(4.0, name="blur")(x, pad=(1, 1))
        else:
            x = jax.lax.conv_general_dilated(x, weights, (1, 1), "SAME", dimension_numbers=_NHWC, precision=PRECISION)
        if not self.demodulate:
            return x
        energy = jnp.matmul(jnp.square(style), jnp.square(kernel).sum((0, 1)), precision=PRECISION)
        scale = jax.lax.rsqrt(energy + DEMODULATION_EPS)
        return x * scale.astype(self.dtype)[:, None, None]


class StyledConv(nn.Module):
    """Modulated convolution, the encoder's features in the place of StyleGAN2's noise, activation."""

    features: int
    upsample: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        latent: Float[Array, "batch style"],
        encoded: Float[Array, "batch new_height new_width features"],
    ) -> Float[Array, "batch new_height new_width twice_features"]:
        x = ModulatedConv(self.features, upsample=self.upsample, dtype=self.dtype, name="conv")(x, latent)
        weight = self.param("noise", _ones, (1,)).astype(self.dtype)
        bias = self.param("bias", _zeros, (FEATURES * self.features,))
        return fused_leaky_relu(jnp.concatenate([x, weight * encoded.astype(self.dtype)], axis=-1), bias)


class ToRGB(nn.Module):
    """Adds what one level contributes to the image to the enlarged image of the levels below."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        latent: Float[Array, "batch style"],
        below: Float[Array, "batch half_height half_width 3"] | None = None,
    ) -> Float[Array, "batch height width 3"]:
        image = ModulatedConv(3, size=1, demodulate=False, dtype=self.dtype, name="conv")(x, latent)
        image = image + self.param("bias", _zeros, (1, 1, 1, 3)).astype(self.dtype)
        if below is None:
            return image
        return image + BlurFilter(4.0, name="upsample")(below, up=2, pad=(2, 1))
