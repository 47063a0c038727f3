"""Squeeze-and-excitation (Hu et al., CVPR 2018): weights of channels from pooled features."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.models import layers
from deskpro_jax.models.initialisers import uniform_fan_in


class SqueezeExcitation(nn.Module):
    """Two linear layers without biases, ReLU between them, sigmoid after: weights in (0, 1), one for each channel."""

    reduction: int = 16
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, pooled: Float[Array, "batch channels"]) -> Float[Array, "batch channels"]:
        channels, x = pooled.shape[-1], pooled[:, None, None]
        few = channels // self.reduction
        x = nn.relu(layers.Pointwise(few, dtype=self.dtype, kernel_init=uniform_fan_in(channels), name="fc_0")(x))
        x = layers.Pointwise(channels, dtype=self.dtype, kernel_init=uniform_fan_in(few), name="fc_2")(x)
        return nn.sigmoid(x)[:, 0, 0]
