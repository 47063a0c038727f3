"""OSNet (Zhou et al., ICCV 2019): omni-scale blocks, the truncated trunk, the tail, and the whole classifier."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.config import user_modules
from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.attention import SpatialAttention
from deskpro_jax.models.remat import run_block

# Branch of an OSBlock (a stream in the paper) -> number of light convolutions in a row. "aacd" runs branch a twice and
# b never.
OS_STREAM_DEPTHS = {"a": 1, "b": 2, "c": 3, "d": 4}
OS_STREAMS = ("abcd", "aacd")


# Blocks of `Trunk` and `Tail` with InstanceNorm; AIN's are the layout that its paper's search found.
INSTANCE_NORM_BLOCKS = {
    "batch": (),
    "ibn": ("block2_0", "block2_1"),
    "ain": ("block2_0", "block2_1", "block3_1", "block4_0"),
}


@dataclass(frozen=True)
class Backbone:
    """Widths of an OSNet: channels after conv1 and out of conv2, conv3, conv4 (conv5 keeps conv4's), and `norm`.

    `norm` is "batch" (the original OSNet), "ibn" (InstanceNorm after conv1, and in front of the last ReLU of conv2's
    blocks) or "ain" (InstanceNorm after conv1, and in place of the last BatchNorm of four blocks).

    A fork's network takes OSNet's place by modules of its own, built and called as those that they replace:
    `trunk` as `Trunk` [batch, height, width, 3] -> [batch, rows, columns, features], `tail` as `Tail` with groups (3,)
    -> [3, batch, ...], `block` as `OSBlock` on the first of these.
    """

    channels: tuple[int, int, int, int]
    norm: str = "batch"
    trunk: Callable[..., nn.Module] | None = None
    tail: Callable[..., nn.Module] | None = None
    block: Callable[..., nn.Module] | None = None

    def block_norm(self, name: str) -> str:
        """Returns `OSBlock.norm` of the block called `name` in `Trunk` or `Tail`."""
        return self.norm if name in INSTANCE_NORM_BLOCKS[self.norm] else "batch"


WIDTHS = {
    "x1_0": (64, 256, 384, 512),
    "x0_75": (48, 192, 288, 384),
    "x0_5": (32, 128, 192, 256),
    "x0_25": (16, 64, 96, 128),
}
PREFIXES = {"batch": "", "ibn": "ibn_", "ain": "ain_"}  # of a backbone's name, by its norm
BACKBONES = {prefix + width: Backbone(WIDTHS[width], norm) for norm, prefix in PREFIXES.items() for width in WIDTHS}


def backbone(name: str) -> Backbone:
    """Returns the OSNet called `name`, or the backbone of a fork that it names as "module:name".

    Raises:
        InputError: there is no such backbone.
    """
    return user_modules.find_in("model.backbone", name, BACKBONES, Backbone)


def os_stream_names(os_streams: str) -> str:
    """Returns the distinct branches that run, in order of depth: "abcd", or "acd" for "aacd"."""
    if os_streams not in OS_STREAMS:
        raise InputError(f"model.streams is {os_streams!r}; expected one of {', '.join(OS_STREAMS)}.")
    return "".join(sorted(set(os_streams)))


def stages(os_streams: str) -> list[str]:
    """Returns for each stage of light convolutions the branches that are that deep: ["abcd", "bcd", "cd", "d"]."""
    names = os_stream_names(os_streams)
    return ["".join(s for s in names if OS_STREAM_DEPTHS[s] > depth) for depth in range(max(OS_STREAM_DEPTHS.values()))]


class ConvUnit(nn.Module):
    """1x1 convolution, BatchNorm and, unless `linear`, ReLU."""

    features: int
    groups: tuple[int, ...] = ()
    linear: bool = False
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        x = layers.Pointwise(self.features, self.groups, dtype=self.dtype, name="conv")(x)
        x = layers.BatchNorm(self.groups, dtype=self.dtype, name="bn")(x, train=train, valid=valid)
        return x if self.linear else nn.relu(x)


class LightStage(nn.Module):
    """One light 3x3 convolution (1x1, depthwise 3x3, BatchNorm, ReLU) of every branch that is deep enough."""

    features: int
    groups: tuple[int, ...]
    passes: tuple[int, ...] | None = None
    dtype: layers.Dtype = jnp.float32
    depthwise: str = "auto"

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        x = layers.Pointwise(self.features, self.groups, dtype=self.dtype, name="pointwise")(x)
        x = layers.Depthwise3x3(self.groups, self.dtype, self.depthwise, name="depthwise")(x)
        x = layers.BatchNorm(self.groups, self.passes, dtype=self.dtype, name="bn")(x, train=train, valid=valid)
        return nn.relu(x)


class ChannelGate(nn.Module):
    """Channel weights in (0, 1) from pooled features; all branches of a block share it."""

    groups: tuple[int, ...] = ()
    reduction: int = 16
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, pooled: Float[Array, "*groups branches batch channels"]) -> Array:
        channels = pooled.shape[-1]
        x = pooled[..., None, :]  # to [..., branches, batch, 1, channels]: a map that is `batch` high
        hidden = layers.Pointwise(channels // self.reduction, self.groups, True, self.dtype, name="fc1")(x)
        return nn.sigmoid(layers.Pointwise(channels, self.groups, True, self.dtype, name="fc2")(nn.relu(hidden)))[
            ..., 0, :
        ]


class OSBlock(nn.Module):
    """Omni-scale residual block: four branches of growing depth, gated by a shared gate, summed.

    `norm` is "batch", "ibn" (InstanceNorm after the addition as well) or "ain" (InstanceNorm in place of the last
    BatchNorm, inside the residual).
    """

    features: int
    groups: tuple[int, ...] = ()
    os_streams: str = "abcd"
    norm: str = "batch"
    dtype: layers.Dtype = jnp.float32
    depthwise: str = "auto"

    @nn.compact
    def __call__(
        self, x: Float[Array, "*groups batch height width channels"], *, train: bool, valid: Array | None = None
    ) -> Float[Array, "*groups batch height width features"]:
        mid = self.features // 4
        reduced = ConvUnit(mid, self.groups, dtype=self.dtype, name="conv1")(x, train=train, valid=valid)
        names = os_stream_names(self.os_streams)
        weights = [self.os_streams.count(name) for name in names]
        axis = len(self.groups)
        current = jnp.expand_dims(reduced, axis)  # every branch starts from the same map
        finished = []
        for depth, running in enumerate(stages(self.os_streams)):
            if current.shape[axis] > len(running):  # branches that ended leave from the front
                current = jax.lax.slice_in_dim(
                    current, current.shape[axis] - len(running), current.shape[axis], axis=axis
                )
            passes = tuple(weights[names.index(name)] for name in running)
            current = LightStage(
                mid,
                (*self.groups, len(running)),
                passes if max(passes) > 1 else None,
                self.dtype,
                self.depthwise,
                name=f"stage{depth}",
            )(current, train=train, valid=valid)
            ended = sum(OS_STREAM_DEPTHS[name] == depth + 1 for name in running)
            if ended:
                finished.append(jax.lax.index_in_dim(current, 0, axis, keepdims=False))
        pooled = jnp.stack([branch.mean((-3, -2)) for branch in finished], axis)
        gates = ChannelGate(self.groups, dtype=self.dtype, name="gate")(pooled)
        gated = [
            branch * (weight * jax.lax.index_in_dim(gates, i, axis, keepdims=False))[..., None, None, :]
            for i, (branch, weight) in enumerate(zip(finished, weights, strict=True))
        ]
        mixed = functools.reduce(jnp.add, gated)
        if self.norm == "ain":
            out = layers.Pointwise(self.features, self.groups, dtype=self.dtype, name="conv3")(mixed)
            out = layers.InstanceNorm(self.groups, self.dtype, name="instance_norm")(out)
        else:
            out = ConvUnit(self.features, self.groups, linear=True, dtype=self.dtype, name="conv3")(
                mixed, train=train, valid=valid
            )
        if x.shape[-1] != self.features:
            x = ConvUnit(self.features, self.groups, linear=True, dtype=self.dtype, name="downsample")(
                x, train=train, valid=valid
            )
        out = out + x.astype(out.dtype)
        if self.norm == "ibn":
            out = layers.InstanceNorm(self.groups, self.dtype, name="instance_norm")(out)
        return nn.relu(out)


class Trunk(nn.Module):
    """OSNet up to the first block of its third stage: [B, H, W, 3] -> [B, H/8, W/8, channels[2]]."""

    backbone: Backbone
    os_streams: str = "abcd"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"
    depthwise: str = "auto"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> Float[Array, "batch rows columns features"]:
        stem, second, third, _ = self.backbone.channels
        x = layers.StemConv(stem, dtype=self.dtype, name="stem")(x)
        if self.backbone.norm == "batch":
            x = layers.BatchNorm(dtype=self.dtype, name="stem_norm")(x, train=train, valid=valid)
        else:
            x = layers.InstanceNorm(dtype=self.dtype, name="stem_norm")(x)
        x = layers.max_pool3x3(nn.relu(x))
        for i in range(2):
            x = self._block(f"block2_{i}", second, x, train, valid)
        x = ConvUnit(second, dtype=self.dtype, name="transition2")(x, train=train, valid=valid)
        x = layers.avg_pool2x2(x)
        return self._block("block3_0", third, x, train, valid)

    def _block(self, name: str, features: int, x: Array, train: bool, valid: Array | None) -> Array:
        norm = self.backbone.block_norm(name)
        block = OSBlock(features, (), self.os_streams, norm, self.dtype, self.depthwise, name=name)
        return run_block(block, x, train=train, valid=valid, remat=self.remat)


class Tail(nn.Module):
    """The remaining blocks of OSNet, one independent copy per group: -> `[*groups, B, H/16, W/16, channels[3]]`."""

    backbone: Backbone
    groups: tuple[int, ...] = ()
    os_streams: str = "abcd"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"
    depthwise: str = "auto"

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        _, _, third, fourth = self.backbone.channels
        x = self._block("block3_1", third, x, train, valid)
        x = ConvUnit(third, self.groups, dtype=self.dtype, name="transition3")(x, train=train, valid=valid)
        x = layers.avg_pool2x2(x)
        for i in range(2):
            x = self._block(f"block4_{i}", fourth, x, train, valid)
        return ConvUnit(fourth, self.groups, dtype=self.dtype, name="conv5")(x, train=train, valid=valid)

    def _block(self, name: str, features: int, x: Array, train: bool, valid: Array | None) -> Array:
        norm = self.backbone.block_norm(name)
        block = OSBlock(features, self.groups, self.os_streams, norm, self.dtype, self.depthwise, name=name)
        return run_block(block, x, train=train, valid=valid, remat=self.remat)


class OSNet(nn.Module):
    """OSNet as published: global average pooling, a 512-d fully connected layer with BatchNorm, a classifier.

    `attention` adds CSA to the trunk's map, where DeSKPro has it: "paper", "released" or "none".
    """

    backbone: str = "x1_0"
    num_classes: int = 1000
    feature_dim: int = 512
    os_streams: str = "abcd"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"
    depthwise: str = "auto"
    attention: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool = False, valid: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the network.

        Args:
            images: normalised RGB images.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows.
            valid: images whose statistics count in training; all of them if absent.

        Returns:
            outputs: `logits` [1, batch, classes], and the `features` [1, batch, feature_dim], which are also the
                `embeddings`.
            intermediates: `trunk` [batch, height / 8, width / 8, channels], with CSA the `refined` map and the
                `attention` [batch, height / 8, width / 8], and the `feature_map` [batch, height / 16, width / 16,
                channels].
        """
        spec = backbone(self.backbone)
        stats = layers.at_least_float32(self.dtype)
        valid = valid if train else None
        execution = self.remat, self.depthwise
        x = Trunk(spec, self.os_streams, self.dtype, *execution, name="trunk")(images, train=train, valid=valid)
        middle = {"trunk": x}
        if self.attention != "none":
            x, middle["attention"] = SpatialAttention(self.attention, self.dtype, name="attention")(x)
            middle["refined"] = x
        x = Tail(spec, (), self.os_streams, self.dtype, *execution, name="tail")(x, train=train, valid=valid)
        middle["feature_map"] = x
        pooled = x.mean((-3, -2))[:, None, None]
        x = layers.Pointwise(self.feature_dim, (), True, self.dtype, initialisers.normal(0.01), name="fc")(pooled)
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="fc_norm")(x, train=train, valid=valid))
        logits = layers.Pointwise(self.num_classes, (), True, self.dtype, initialisers.normal(0.01), name="classifier")
        features = x[None, :, 0, 0].astype(stats)
        outputs = {"logits": logits(x)[None, :, 0, 0].astype(stats), "features": features, "embeddings": features}
        return outputs, middle
