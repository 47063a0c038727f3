"""Capsules with dynamic routing (Sabour et al., NIPS 2017), as ReIDCaps' released code computes them."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.errors import InputError
from deskpro_jax.models import layers
from deskpro_jax.models.initialisers import normal, uniform_fan_in

ROUTINGS = ("nodes", "identities")
DIM = 8  # of a primary capsule
CHANNELS = 32  # primary capsules of each place of a map


def squash(vectors: Float[Array, "*lead dimension"], axis: int = -1) -> Float[Array, "*lead dimension"]:
    """Scales vectors to lengths in [0, 1): |v|^2 / (1 + |v|^2) v / |v|.

    Written as v |v| / (1 + |v|^2), with the root kept off zero: a zero vector stays zero and has a gradient of zero,
    where the formula as it stands is 0 / 0.
    """
    square = jnp.sum(vectors * vectors, axis, keepdims=True)
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return vectors * (length / (1 + square))


def route(
    votes: Float[Array, "batch nodes dimension identities"], iterations: int, over: str = "nodes"
) -> Float[Array, "batch dimension identities"]:
    """Routes votes by agreement; gradients flow through every iteration.

    Args:
        votes: what each node says of each identity's capsule.
        iterations: rounds of routing, at least 1.
        over: what the softmax of a round runs over: "nodes" for each identity, as in ReIDCaps' code, or "identities"
            for each node, as Sabour et al. have it.

    Returns:
        The identities' capsules.

    Raises:
        InputError: `over` is neither.
    """
    if over not in ROUTINGS:
        raise InputError(f"model.routing_over is {over!r}; expected one of {', '.join(ROUTINGS)}.")
    logits = jnp.zeros_like(votes[:, :, 0])
    for iteration in range(iterations):
        shares = jax.nn.softmax(logits, 1 if over == "nodes" else 2)
        capsules = squash((shares[:, :, None] * votes).sum(1), 1)
        if iteration < iterations - 1:
            logits = logits + (votes * capsules[:, None]).sum(2)
    return capsules


class _Convolution(nn.Module):
    """Kernel [2, 2, channels, features] and bias [features] of a 2x2 convolution, with PyTorch's initial values."""

    features: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[Array, Array]:
        init = uniform_fan_in(4 * channels)
        kernel = self.param("kernel", init, (2, 2, channels, self.features))
        return kernel, self.param("bias", init, (self.features,))


class PrimaryCapsules(nn.Module):
    """One 2x2 convolution of stride 2 for each coordinate, then squash: [B, H, W, C] -> [B, nodes, 8].

    The nodes are in the order of PyTorch's maps: channel, row, column. An odd last row or column is not read.
    """

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch nodes 8"]:
        batch, height, width, channels = x.shape
        rows, columns = height // 2, width // 2
        if not rows or not columns:
            raise InputError(f"capsules need a map of 2x2 or more, not {height}x{width}: images of 64 pixels or more.")
        kernels, biases = zip(
            *(_Convolution(CHANNELS, name=f"capsules_{number}")(channels) for number in range(DIM)), strict=True
        )
        # Windows do not overlap, so that all convolutions are one matrix product of the windows.
        x = x[:, : 2 * rows, : 2 * columns].reshape(batch, rows, 2, columns, 2, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows, columns, 4 * channels).astype(self.dtype)
        y = x @ jnp.stack(kernels, -1).reshape(4 * channels, CHANNELS * DIM).astype(self.dtype)
        y = y.astype(layers.at_least_float32(self.dtype)).reshape(batch, rows, columns, CHANNELS, DIM)
        y = (y + jnp.stack(biases, -1)).transpose(0, 3, 1, 2, 4)
        return squash(y.reshape(batch, -1, DIM))


class IdentityCapsules(nn.Module):
    """A capsule for each identity, by routing from the primary ones: [B, nodes, 8] -> [B, 24, identities]."""

    num_classes: int
    iterations: int = 4
    over: str = "nodes"
    dim: int = 24

    @nn.compact
    def __call__(self, nodes: Float[Array, "batch nodes 8"]) -> Float[Array, "batch 24 identities"]:
        shape = (nodes.shape[1], nodes.shape[2], self.dim, self.num_classes)
        if self.has_variable("params", "route_weights"):
            held: int = self.get_variable("params", "route_weights").shape[0]
            if held != nodes.shape[1]:
                raise InputError(
                    f"images of this size have {nodes.shape[1]} capsules, the network is made for {held}: give the size"
                    " that it was trained with (224x224 as published)."
                )
        weights = self.param("route_weights", normal(1.0), shape)
        votes = jnp.einsum("bid,idon->bion", nodes, weights.astype(nodes.dtype))
        return route(votes, self.iterations, self.over)


def lengths_of(capsules: Float[Array, "batch dimension identities"]) -> Float[Array, "batch identities"]:
    """Returns the lengths of capsules; the gradient of a zero capsule is zero."""
    square = (capsules * capsules).sum(1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
