"""Cloth-irrelevant spatial attention (CSA): a map in (0, 1) that multiplies the middle features (Eq. 1-2)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers, layers

FORMS = ("paper", "released")


class SpatialAttention(nn.Module):
    """CSA in the paper's form (one pointwise convolution and bias) or the released code's (two, without bias)."""

    form: str = "paper"
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch height width"]]:
        """Returns the refined features F_att (Eq. 2) and the attention map (Eq. 1)."""
        if self.form not in FORMS:
            raise InputError(f"model.attention is {self.form!r}; expected one of {', '.join(FORMS)} or none.")
        channels = features.shape[-1]
        init = initialisers.uniform_fan_in(channels)
        x = features
        if self.form == "released":
            x = nn.relu(layers.Pointwise(channels, dtype=self.dtype, kernel_init=init, name="conv1")(x))
            x = layers.Pointwise(1, dtype=self.dtype, kernel_init=init, name="conv2")(x)
        else:
            x = layers.Pointwise(1, (), True, self.dtype, init, init, name="conv")(x)
        attention = nn.sigmoid(x)
        return features * attention, attention[..., 0]
