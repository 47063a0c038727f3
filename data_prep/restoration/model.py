"""GPEN (Yang et al., CVPR 2021): an encoder whose features steer a StyleGAN2 generator at every level."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from data_prep.restoration.layers import EncoderStage, EqualLinear, StyledConv, ToRGB
from data_prep.restoration.ops import pixel_norm
from deskpro_jax.models.layers import Dtype, at_least_float32

MAPPING_RATE = 0.01  # of the style network's layers
SMALLEST = 4  # pixels of the level that encoder and generator meet at


@dataclass(frozen=True)
class Architecture:
    """The sizes of one GPEN.

    Attributes:
        channels: of each level, from the image's own size down to 4 pixels, each half as large as the one before.
        style_dim: length of the latent.
        mapping_layers: depth of the style network.
    """

    channels: tuple[int, ...]
    style_dim: int = 512
    mapping_layers: int = 8

    @property
    def size(self) -> int:
        """Height and width of its faces in pixels."""
        return SMALLEST << (len(self.channels) - 1)


BFR_256 = Architecture((32, 64, 128, 256, 256, 256, 256))
BFR_512 = Architecture((64, 128, 256, 512, 512, 512, 512, 512))


class GPEN(nn.Module):
    """The whole restorer."""

    architecture: Architecture
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, faces: Float[Array, "batch size size 3"]) -> tuple[Array, dict[str, Array | list[Array]]]:
        """Restores faces; without any randomness.

        Args:
            faces: RGB in -1..1.

        Returns:
            image: [batch, size, size, 3], RGB, mostly within -1..1.
            intermediates: `encoded` of each level [batch, s, s, C], large to small; `code` [batch, style_dim], what the
                encoder ends in; `latent` [batch, style_dim], the style of every layer; `rgb`, the image at each level
                [batch, s, s, 3], small to large.
        """
        shape = self.architecture
        x, encoded = faces, []
        for i, channels in enumerate(shape.channels):
            x = EncoderStage(channels, downsample=i > 0, dtype=self.dtype, name=f"encoder_{i}")(x)
            encoded.append(x)
        # The linear layer's weights expect channels first.
        flat = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        code = EqualLinear(shape.style_dim, activate=True, dtype=self.dtype, name="encoder_end")(flat)
        exact = at_least_float32(self.dtype)  # the latent is small and scales everything
        latent = pixel_norm(code.astype(exact))
        for i in range(shape.mapping_layers):
            layer = EqualLinear(shape.style_dim, MAPPING_RATE, activate=True, dtype=exact, name=f"mapping_{i}")
            latent = layer(latent)

        start = self.param("start", nn.initializers.normal(1.0), (1, SMALLEST, SMALLEST, shape.channels[-1]))
        x = jnp.broadcast_to(start, (faces.shape[0], *start.shape[1:]))
        rgb: list[Array] = []
        for level, features in enumerate(reversed(encoded)):
            channels = features.shape[-1]
            if level > 0:
                x = StyledConv(channels, upsample=True, dtype=self.dtype, name=f"up_{level}")(x, latent, features)
            x = StyledConv(channels, dtype=self.dtype, name=f"conv_{level}")(x, latent, features)
            rgb.append(ToRGB(self.dtype, name=f"rgb_{level}")(x, latent, rgb[-1] if rgb else None))
        return rgb[-1], {"encoded": encoded, "code": code, "latent": latent, "rgb": rgb}
