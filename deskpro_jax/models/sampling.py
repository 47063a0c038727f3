"""Bilinear sampling of feature maps, as products with small matrices of interpolation weights (PyTorch's numerics).

Scaling, shifting and resizing treat rows and columns each by themselves, so that one matrix for the rows and one for
the columns does the work of a grid of positions, without gathers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_HIGHEST = jax.lax.Precision.HIGHEST  # weights are exact: no reduced-precision products


def positions(
    size: int, scale: float, shift: Float[Array, "*batch"], align_corners: bool
) -> Float[Array, "*batch out"]:
    """Returns where each pixel of one axis of a transformed image comes from (`affine_grid`, then `grid_sample`).

    Args:
        size: pixels along the axis, before and after.
        scale: of the affine map on coordinates from -1 to 1.
        shift: of the affine map.
        align_corners: whether -1 and 1 are the centres of the outermost pixels; otherwise they are their outer edges.

    Returns:
        Positions in pixels, 0 at the centre of the first; outside the image they are below 0 or above `size` - 1.
    """
    steps = jnp.arange(size, dtype=shift.dtype)
    if align_corners:
        grid = steps * (2 / max(size - 1, 1)) - 1
        return ((scale * grid + shift[..., None]) + 1) * ((size - 1) / 2)
    grid = (2 * steps + 1) / size - 1
    return ((scale * grid + shift[..., None] + 1) * size - 1) / 2


def resized_positions(size: int, new_size: int, dtype: jnp.dtype) -> Float[Array, " out"]:
    """Returns where each pixel of one axis of a resized image comes from, outermost centres on outermost centres."""
    return jnp.arange(new_size, dtype=dtype) * ((size - 1) / max(new_size - 1, 1))


def weights(position: Float[Array, "*batch out"], size: int) -> Float[Array, "*batch out size"]:
    """Returns the linear interpolation weights at positions along an axis; what lies outside counts as 0.

    The gradient to a position is the difference of the pixels on both sides of it, as in PyTorch.
    """
    left = jax.lax.stop_gradient(jnp.floor(position))
    fraction = (position - left)[..., None]
    pixel = jnp.arange(size, dtype=position.dtype)
    return jnp.where(pixel == left[..., None], 1 - fraction, 0) + jnp.where(pixel == left[..., None] + 1, fraction, 0)


def apply(
    rows: Float[Array, "*regions new_height height"],
    columns: Float[Array, "*regions new_width width"],
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "*regions new_height new_width channels"]:
    """Interpolates maps: the weights of the rows from one side, those of the columns from the other.

    Args:
        rows: weights, of all images alike, or for each image [batch, ...] of any number of regions.
        columns: weights, with the same leading axes.
        x: maps.

    Returns:
        Maps of the new size in the type of `x`; [batch, regions, ...] where there are regions.
    """
    rows, columns = rows.astype(x.dtype), columns.astype(x.dtype)
    if rows.ndim == 2:
        x = jnp.einsum("oh,bhwc->bowc", rows, x, precision=_HIGHEST)
        return jnp.einsum("pw,bowc->bopc", columns, x, precision=_HIGHEST)
    x = jnp.einsum("broh,bhwc->browc", rows, x, precision=_HIGHEST)
    return jnp.einsum("brpw,browc->bropc", columns, x, precision=_HIGHEST)


def resize(
    x: Float[Array, "batch height width channels"], size: tuple[int, int]
) -> Float[Array, "batch new_height new_width channels"]:
    """Resizes maps bilinearly, the centres of the corner pixels staying where they are (`align_corners=True`)."""
    matrices = [
        weights(resized_positions(old, new, jnp.promote_types(x.dtype, jnp.float32)), old)
        for old, new in zip(x.shape[1:3], size, strict=True)
    ]
    return apply(matrices[0], matrices[1], x)


def sample_regions(
    x: Float[Array, "batch height width channels"],
    shifts: Float[Array, "batch regions 2"],
    scale: tuple[float, float],
    size: tuple[int, int],
    *,
    align_corners: bool,
) -> Float[Array, "batch regions new_height new_width channels"]:
    """Cuts regions out of maps: an affine map of scale and shift, then `resize` to one size.

    Args:
        x: maps.
        shifts: of each region, (x, y) from -1 to 1, in half widths and half heights of the map.
        scale: of width and height, (x, y).
        size: height and width of the result.
        align_corners: see `positions`; of the affine map.

    Returns:
        The regions; zeros where they reach beyond the map.
    """
    matrices = []
    for axis in (1, 0):  # rows, columns
        old, new = x.shape[2 - axis], size[1 - axis]
        shift = shifts[..., axis].astype(jnp.promote_types(x.dtype, jnp.float32))
        sampled = weights(positions(old, scale[axis], shift, align_corners), old)
        resizing = weights(resized_positions(old, new, shift.dtype), old)
        matrices.append(jnp.einsum("op,brph->broh", resizing, sampled, precision=_HIGHEST))
    return apply(matrices[0], matrices[1], x)
