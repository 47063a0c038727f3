"""Horizontal pyramid: a map's maximum as a whole and in 2, 4 and 8 stripes, each part reduced by itself."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers, layers

LEVELS = (1, 2, 4, 8)  # stripes
LEAST = 128  # pixels of height for a row in each of eight stripes
PARTS = ("global", *(f"{level}_{stripe}" for level in LEVELS[1:] for stripe in range(level)))  # from top to bottom
_FILE_PARTS = ("global.", *(f"pcb{level}.{stripe}." for level in LEVELS[1:] for stripe in range(level)))


class HorizontalPyramid(nn.Module):
    """For each part: maximum, 1x1 convolution, BatchNorm, ReLU (Fu et al., Horizontal Pyramid Matching, AAAI 2019)."""

    features: int = 256
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool, valid: Array | None
    ) -> Float[Array, "parts batch features"]:
        """Returns the parts in the order of `PARTS`; rows that are left over at the bottom are not read."""
        stripes = []
        for level in LEVELS:
            rows = x.shape[1] // level
            stripes += [layers.global_max(x[:, i * rows : (i + 1) * rows]) for i in range(level)]
        pooled = jnp.stack(stripes)[:, :, None, None]
        groups = (len(PARTS),)
        init = initialisers.kaiming_fan_out(self.features)
        reduced = layers.Pointwise(self.features, groups, dtype=self.dtype, kernel_init=init, name="conv")(pooled)
        reduced = layers.BatchNorm(groups, dtype=self.dtype, name="bn")(reduced, train=train, valid=valid)
        return nn.relu(reduced)[:, :, 0, 0]


def check_height(config: ml_collections.ConfigDict) -> None:
    """Checks that maps have a row for each of eight stripes.

    Raises:
        InputError: photos are too low.
    """
    size = tuple(config.data.body_size)
    if size[0] < LEAST:
        raise InputError(
            f"data.body_size is {size[0]}x{size[1]}; {config.model.name!r} cuts maps into eight stripes: expected a"
            f" height of {LEAST} pixels or more."
        )


def stacks(module: str, ending: str = "") -> tuple[str, tuple[str, ...]]:
    """Returns the entry of `PublishedNames.stacks` for a module that has a copy for each part.

    Args:
        module: regular expression for its path, dot included.
        ending: what comes after the part, where the module is one layer.
    """
    return module, tuple(part + ending for part in _FILE_PARTS)


# Parts as `stacks` names them -> the names that the codes of SPS and AIM share.
NAMES = tuple(
    pair
    for own, first, others in (("conv", "conv", "conv"), ("bn", "bn", "batchnorm"), ("fc", "fc", "fc"))
    for pair in (
        (rf"\bglobal\.{own}\.", f"global_{first}."),
        (rf"\bpcb(\d)\.(\d)\.{own}\.", rf"pcb\1_{others}_list.\2."),
    )
)
