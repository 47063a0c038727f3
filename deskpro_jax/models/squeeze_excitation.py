"""Squeeze-and-excitation (Hu et al., CVPR 2018): weights of channels from pooled features."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.models import layers
from deskpro_jax.models.initialisers import uniform_fan_in


class SqueezeExcitation(nn.Module):
    """Two linear layers, ReLU between them, sigmoid after: weights in (0, 1), one for each channel."""

    reduction: int = 16
    use_bias: bool = False
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, pooled: Float[Array, "batch channels"]) -> Float[Array, "batch channels"]:
        channels, x = pooled.shape[-1], pooled[:, None, None]
        few = channels // self.reduction
        x = nn.relu(self._linear(channels, few, "fc_0")(x))
        return nn.sigmoid(self._linear(few, channels, "fc_2")(x))[:, 0, 0]

    def _linear(self, fan_in: int, features: int, name: str) -> layers.Pointwise:
        init = uniform_fan_in(fan_in)
        return layers.Pointwise(features, (), self.use_bias, self.dtype, init, init, name=name)
