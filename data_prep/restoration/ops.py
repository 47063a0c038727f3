"""StyleGAN2's own operations as GPEN uses them: filtered resampling and the fused activation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NEGATIVE_SLOPE = 0.2
ACTIVATION_GAIN = 2.0**0.5


def upfirdn2d(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns"],
    *,
    up: int = 1,
    down: int = 1,
    pad: tuple[int, int] = (0, 0),
) -> Float[Array, "batch new_height new_width channels"]:
    """Enlarges with zeros, pads, convolves every channel with one kernel and keeps each `down`-th pixel.

    One multiply-add a tap: XLA's grouped convolution is an order of magnitude slower on CPU.

    Args:
        x: images or feature maps.
        kernel: the filter; it is applied as a convolution, that is mirrored.
        up: each pixel becomes `up` by `up` pixels, all but the first of them zero.
        down: stride.
        pad: zeros before and after, in pixels of the enlarged image, the same for height and width; negative: cropped.

    Returns:
        Feature maps of ((size * up + pad[0] + pad[1] - taps) // down + 1) pixels in each direction.

    Source:
        Karras et al., CVPR 2020 (StyleGAN2), and the operation of that name in its code.
    """
    before, after = pad
    edges = (before, after + up - 1, up - 1)  # the last pixel is enlarged, too
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), edges, edges, (0, 0, 0)])
    # Fused into the shifted products, the padding would turn every load into a bounds check.
    padded = jax.lax.optimization_barrier(padded)
    taps = kernel[::-1, ::-1].astype(x.dtype)
    rows, columns = taps.shape
    height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    return functools.reduce(
        jnp.add,
        [
            padded[:, i : i + height : down, j : j + width : down] * taps[i, j]
            for i in range(rows)
            for j in range(columns)
        ],
    )


def fused_leaky_relu(
    x: Float[Array, "*batch channels"], bias: Float[Array, " channels"]
) -> Float[Array, "*batch channels"]:
    """Returns sqrt(2) * leaky_relu(x + bias) with slope 0.2, which keeps the variance of its input.

    Args:
        x: activations, channels last.
        bias: one number a channel.
    """
    shifted = x + bias.astype(x.dtype)
    return jnp.where(shifted >= 0, shifted, NEGATIVE_SLOPE * shifted) * ACTIVATION_GAIN


def pixel_norm(x: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
    """Returns x over the root of its mean square along the channels (eps 1e-8)."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-8)
