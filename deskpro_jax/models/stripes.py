"""Horizontal stripes of feature maps, pooled: the parts of PCB, MGN, LightMBN and CSSC."""

from __future__ import annotations

from jaxtyping import Array, Float

from deskpro_jax.models import layers

POOLS = ("max", "avg")  # values of model.pool


def stripes(x: Float[Array, "batch height width channels"], parts: int) -> list[Array]:
    """Cuts maps into stripes of full width, as PyTorch's adaptive pooling does.

    Args:
        x: feature maps.
        parts: number of stripes; stripe p has the rows floor(p H / parts) to ceil((p + 1) H / parts) - 1, so that
            stripes overlap where the height is not a multiple.

    Returns:
        The stripes from top to bottom, each [batch, rows, width, channels].
    """
    height = x.shape[1]
    return [x[:, part * height // parts : -(-(part + 1) * height // parts)] for part in range(parts)]


def equal_stripes(x: Float[Array, "batch height width channels"], parts: int) -> list[Array]:
    """Cuts maps into stripes of equally many rows, floor(H / parts); rows left over at the bottom belong to none.

    Args:
        x: feature maps.
        parts: number of stripes; where there are fewer rows each stripe has one, and the last row stands for those
            that are missing.

    Returns:
        The stripes from top to bottom, each [batch, rows, width, channels].
    """
    rows = max(x.shape[1] // parts, 1)
    starts = [min(part * rows, x.shape[1] - rows) for part in range(parts)]
    return [x[:, start : start + rows] for start in starts]


def pool(x: Float[Array, "batch height width channels"], kind: str) -> Float[Array, "batch 1 1 channels"]:
    """Pools whole maps by their largest value ("max") or their mean ("avg")."""
    if kind == "max":
        return layers.global_max(x)[:, None, None]
    return x.astype(layers.at_least_float32(x.dtype)).mean((1, 2), keepdims=True)
