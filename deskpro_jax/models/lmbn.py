"""LightMBN (Herzog et al., ICIP 2021): three OSNet tails, seven part features with necks and classifiers."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.attention import SpatialAttention
from deskpro_jax.models.osnet import OSBlock, Tail, Trunk, backbone
from deskpro_jax.models.remat import run_block
from deskpro_jax.models.stripes import stripes

BRANCHES = ("global", "part", "channel")
PARTS = ("global", "global_drop", "part_max", "part_top", "part_bottom", "channel_0", "channel_1")
TRIPLET_PARTS = (0, 1, 2)  # global, global_drop and part_max take the triplet loss
REDUCED_PARTS = 5  # the channel parts have no reduction of their own


class SharedUnit(nn.Module):
    """The 1x1 convolution, BatchNorm and ReLU that both channel parts go through, one after the other."""

    features: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, halves: Float[Array, "two batch 1 1 channels"], *, train: bool, valid: Array | None = None
    ) -> Array:
        init = initialisers.kaiming_fan_out(halves.shape[-1])  # the reference initialises it by fan-in
        x = layers.Pointwise(self.features, dtype=self.dtype, kernel_init=init, name="conv")(halves)
        norm = layers.BatchNorm(calls=halves.shape[0], dtype=self.dtype, name="bn")
        return nn.relu(norm(x, train=train, valid=valid))


class LightMBN(nn.Module):
    """One stream: truncated OSNet, optional CSA, three branches, seven parts with necks."""

    num_classes: int
    backbone: str = "x1_0"
    os_streams: str = "abcd"
    attention: str = "none"
    feature_dim: int = 512
    drop_ratio: float = 0.33
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"
    depthwise: str = "auto"

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        *,
        train: bool,
        valid: Bool[Array, " batch"] | None = None,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the stream.

        Args:
            images: normalised RGB images; height and width are multiples of 16.
            train: whether batch statistics are used (and the running ones moved) and the top-drop block drops.
            valid: images whose statistics count in training; all of them if absent.

        Returns:
            outputs: `logits` [7, batch, classes], `features` before the neck and `embeddings` after it
                [7, batch, feature_dim], in the order of `PARTS`.
            intermediates: `trunk` and `refined` [batch, H/8, W/8, C] (before and after CSA), `attention`
                [batch, H/8, W/8] with CSA, `branches` [3, batch, H/16, W/16, C], `dropped` [batch, H/16, W/16, C].
        """
        spec = backbone(self.backbone)
        stats = layers.at_least_float32(self.dtype)
        execution = self.remat, self.depthwise
        if spec.trunk is None:
            trunk_module: nn.Module = Trunk(spec, self.os_streams, self.dtype, *execution, name="trunk")
        else:
            trunk_module = spec.trunk(spec, self.os_streams, self.dtype, name="trunk")
        trunk = trunk_module(images, train=train, valid=valid)
        middle = {"trunk": trunk}
        if self.attention != "none":
            trunk, middle["attention"] = SpatialAttention(self.attention, self.dtype, name="attention")(trunk)
            middle["refined"] = trunk
        if spec.tail is None:
            tail: nn.Module = Tail(spec, (len(BRANCHES),), self.os_streams, self.dtype, *execution, name="branches")
        else:
            tail = spec.tail(spec, (len(BRANCHES),), self.os_streams, self.dtype, name="branches")
        maps = tail(trunk, train=train, valid=valid)
        middle["branches"] = maps
        if spec.block is None:
            block: nn.Module = OSBlock(
                spec.channels[3], (), self.os_streams, "batch", self.dtype, self.depthwise, name="drop_block"
            )
        else:
            block = spec.block(spec.channels[3], (), self.os_streams, dtype=self.dtype, name="drop_block")
        global_map = run_block(block, maps[0], train=train, valid=valid, remat=self.remat)
        dropped = drop_top(global_map, self.drop_ratio) if train else global_map
        middle["dropped"] = dropped
        top, bottom = stripes(maps[1], 2)
        pooled = jnp.stack(
            [
                global_map.mean((1, 2)),
                layers.global_max(dropped),
                layers.global_max(maps[1]),
                top.mean((1, 2)),
                bottom.mean((1, 2)),
            ]
        )
        reduced = layers.Pointwise(
            self.feature_dim,
            (REDUCED_PARTS,),
            dtype=self.dtype,
            kernel_init=initialisers.kaiming_fan_out(pooled.shape[-1]),
            name="reduction",
        )(pooled[:, :, None, None])
        channels = jnp.stack(jnp.split(maps[2].mean((1, 2)), 2, axis=-1))
        shared = SharedUnit(self.feature_dim, self.dtype, name="shared")(
            channels[:, :, None, None], train=train, valid=valid
        )
        features = jnp.concatenate([reduced, shared]).astype(stats)
        neck = layers.BatchNorm((len(PARTS),), frozen_bias=True, dtype=stats, name="neck")
        embeddings = neck(features, train=train, valid=valid)
        logits = layers.Pointwise(
            self.num_classes,
            (len(PARTS),),
            dtype=stats,
            kernel_init=initialisers.normal(0.001),
            name="classifier",
        )(embeddings)
        outputs = {"logits": logits, "features": features, "embeddings": embeddings}
        return {name: value[:, :, 0, 0] for name, value in outputs.items()}, middle


def drop_top(
    x: Float[Array, "batch height width channels"], ratio: float
) -> Float[Array, "batch height width channels"]:
    """Zeroes the rows that hold the highest activations: LightMBN's top-drop block.

    Args:
        x: feature maps.
        ratio: fraction of the rows to drop, rounded to whole rows.

    Returns:
        The maps without their strongest rows, chosen for each image by the largest energy within the row.
    """
    energy = jax.lax.stop_gradient(jnp.square(x.astype(layers.at_least_float32(x.dtype))).sum(-1).max(-1))
    height = x.shape[1]
    rank = jnp.argsort(jnp.argsort(energy, axis=1), axis=1)
    keep = rank < height - round(ratio * height)
    return x * keep[:, :, None, None].astype(x.dtype)
