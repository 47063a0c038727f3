"""The ResNet of CAL and AIM: maximum and mean of the last map side by side, normalised over the batch."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.resnet import ResNetTail, ResNetTrunk, resnet


class MaxAvgResNet(nn.Module):
    """ResNet with last stride 1, global maximum and average pooling, and a BatchNorm, whose bias is trained."""

    backbone: str = "resnet50"
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch rows columns channels"], dict[str, Array]]:
        """Returns the feature, of twice the channels of the last map; that map; and maps of the trunk by name."""
        network, stats = resnet(self.backbone), layers.at_least_float32(self.dtype)
        trunk = ResNetTrunk(network, attention=self.attention, dtype=self.dtype, remat=self.remat, name="trunk")
        x, middle = trunk(images, train=train, valid=valid)
        x = ResNetTail(network, 1, self.dtype, self.remat, name="tail")(x, train=train, valid=valid)
        pooled = jnp.concatenate([layers.global_max(x).astype(stats), x.astype(stats).mean((1, 2))], -1)
        return feature_norm(stats, "feature_norm")(pooled[:, None, None], train=train, valid=valid)[:, 0, 0], x, middle


def feature_norm(dtype: layers.Dtype, name: str) -> layers.BatchNorm:
    """Returns the BatchNorm of a feature, whose scale is drawn from N(1, 0.02)."""
    return layers.BatchNorm(dtype=dtype, scale_init=initialisers.normal(0.02, mean=1.0), name=name)
