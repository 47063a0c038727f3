"""HACNN: soft attention on the whole photo, hard attention that finds four regions, learned together.

Li, Zhu and Gong, Harmonious Attention Network for Person Re-Identification, CVPR 2018 (arXiv:1802.08122), as
torchreid computes it (https://github.com/KaiyangZhou/deep-person-reid). Sections in docstrings are the paper's.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax import losses
from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers, layers, sampling
from deskpro_jax.models.check import check_body_only
from deskpro_jax.models.contract import Counts, LossTerm, PublishedNames, Recipe, StepValues, StreamSpec
from deskpro_jax.models.inception import ConvBlock, InceptionA, InceptionB
from deskpro_jax.models.remat import run_block
from deskpro_jax.models.streams import Streams

BODY_SIZE = (160, 64)  # height and width of photos, the only ones
PARTS = ("global", "local")
REGIONS = 4
REGION_SCALE = (1.0, 0.25)  # of the photo's width and height
REGION_SIZES = ((24, 28), (12, 14), (6, 7))  # height and width of a region's map in each block
_SHIFTS = (0.0, -0.75, 0.0, -0.25, 0.0, 0.25, 0.0, 0.75)  # x and y of each region before the first step


class SpatialAttn(nn.Module):
    """Where to look: one map, from the mean over the channels (section 3.1, I.1)."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Float[Array, "batch height width 1"]:
        size = x.shape[1], x.shape[2]
        x = x.mean(-1, keepdims=True)
        x = ConvBlock(1, 3, 2, dtype=self.dtype, name="conv1")(x, train=train, valid=valid)
        x = sampling.resize(x, size)
        return ConvBlock(1, dtype=self.dtype, name="conv2")(x, train=train, valid=valid)


class ChannelAttn(nn.Module):
    """What to look for: one weight for each channel, from the global average (section 3.1, I.2)."""

    reduction: int = 16
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Float[Array, "batch 1 1 channels"]:
        channels = x.shape[-1]
        x = x.mean((1, 2), keepdims=True)
        x = ConvBlock(channels // self.reduction, dtype=self.dtype, name="conv1")(x, train=train, valid=valid)
        return ConvBlock(channels, dtype=self.dtype, name="conv2")(x, train=train, valid=valid)


class SoftAttn(nn.Module):
    """Attention in [0.5, 1) for each pixel and channel: the ReLU before the sigmoid is the code's, not the paper's."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        spatial = SpatialAttn(self.dtype, name="spatial_attn")(x, train=train, valid=valid)
        channel = ChannelAttn(dtype=self.dtype, name="channel_attn")(x, train=train, valid=valid)
        both = ConvBlock(x.shape[-1], dtype=self.dtype, name="conv")(spatial * channel, train=train, valid=valid)
        return nn.sigmoid(both)


class HardAttn(nn.Module):
    """Where each region lies: its shift (x, y) from -1 to 1 (section 3.1, II)."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "batch regions 2"]:
        bias = initialisers.fixed(_SHIFTS)
        fc = layers.Pointwise(2 * REGIONS, (), True, self.dtype, initialisers.constant(0.0), bias, name="fc")
        return jnp.tanh(fc(x.mean((1, 2), keepdims=True))).reshape(-1, REGIONS, 2)


class HarmAttn(nn.Module):
    """Harmonious attention: soft attention, and the shifts of the regions (section 3.1)."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> tuple[Array, Array]:
        soft = SoftAttn(self.dtype, name="soft_attn")(x, train=train, valid=valid)
        return soft, HardAttn(self.dtype, name="hard_attn")(x)


class HACNN(nn.Module):
    """A global branch with soft attention, and a local one on four regions of what goes into each of its blocks."""

    num_classes: int
    channels: tuple[int, int, int] = (128, 256, 384)
    feature_dim: int = 512
    align_corners: bool = False
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch 160 64 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the network.

        Args:
            images: normalised RGB images.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows.
            valid: images whose statistics count in training; all of them if absent.

        Returns:
            outputs: `logits` [2, batch, classes] of the global and the local branch, and the `features` [2, batch,
                feature_dim], which are also the `embeddings`.
            intermediates: of the last block `attention` [batch, 10, 4], the mean over its channels, and what is left,
                `refined` (also `feature_map`) [batch, 10, 4, channels]; `regions` [batch, blocks, regions, (x, y)],
                their shifts, and `boxes` [batch, regions, (top, left, bottom, right)], where those of the last block
                lie, as fractions of the photo.
        """
        stats = layers.at_least_float32(self.dtype)
        valid = valid if train else None
        run = functools.partial(run_block, train=train, valid=valid, remat=self.remat)
        x = ConvBlock(32, 3, 2, dtype=self.dtype, name="conv")(images, train=train, valid=valid)
        local: Array = jnp.zeros((), x.dtype)
        shifts = []
        for block, width in enumerate(self.channels, 1):
            before = x
            x = run(InceptionA(width, self.dtype, name=f"inception{block}_0"), x)
            x = run(InceptionB(width, dtype=self.dtype, name=f"inception{block}_1"), x)
            soft, shift = HarmAttn(self.dtype, name=f"ha{block}")(x, train=train, valid=valid)
            x = x * soft
            shifts.append(shift)
            size = REGION_SIZES[block - 1]
            regions = sampling.sample_regions(before, shift, REGION_SCALE, size, align_corners=self.align_corners)
            local = regions.reshape(-1, *regions.shape[2:]) + local
            local = run(InceptionB(width, REGIONS, self.dtype, name=f"local_conv{block}"), local)
        pooled = {"global": x.mean((1, 2)), "local": local.mean((1, 2)).reshape(x.shape[0], -1)}
        features, logits = [], []
        for part in PARTS:
            vector = self._linear(pooled[part][:, None, None], self.feature_dim, f"fc_{part}_0")
            norm = layers.BatchNorm(dtype=self.dtype, name=f"fc_{part}_1")
            vector = nn.relu(norm(vector, train=train, valid=valid))
            features.append(vector[:, 0, 0].astype(stats))
            logits.append(self._linear(vector, self.num_classes, f"classifier_{part}")[:, 0, 0].astype(stats))
        outputs = {"logits": jnp.stack(logits), "features": jnp.stack(features), "embeddings": jnp.stack(features)}
        centre, half = shift[..., ::-1], jnp.asarray(REGION_SCALE[::-1], shift.dtype)
        boxes = (jnp.concatenate([centre - half, centre + half], -1) + 1) / 2
        middle = {"attention": soft.mean(-1), "refined": x, "regions": jnp.stack(shifts, 1), "boxes": boxes}
        return outputs, {**middle, "feature_map": x}

    def _linear(self, x: Array, features: int, name: str) -> Array:
        init = initialisers.uniform_fan_in(x.shape[-1])
        return layers.Pointwise(features, (), True, self.dtype, init, init, name=name)(x)


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> HACNN:
    """Returns a HACNN; it has soft attention of its own, and `attention` is "none"."""
    model = config.model
    return HACNN(
        counts.identities,
        feature_dim=model.feature_dim,
        align_corners=model.align_corners,
        dtype=jnp.dtype(model.dtype),
    )


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module: a HACNN as the body stream."""
    return Streams(body_stream=network(config, counts))


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream of the network: a global and a local part."""
    return StreamSpec(name, image, PARTS, (0, 1), config.model.feature_dim)


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns the mean of both branches' cross-entropies, and of their triplet losses with `loss.triplet_weight`."""
    loss = config.loss

    def cross_entropy(values: StepValues) -> Array:
        rows, logits = spec.rows(values.inputs), values.outputs[spec.name]["logits"]
        return losses.cross_entropy(logits, values.inputs["identity"], rows, smoothing=loss.label_smoothing).mean()

    def triplet(values: StepValues) -> Array:
        rows, features = spec.rows(values.inputs), values.outputs[spec.name]["features"]
        labels = values.inputs["identity"]
        return losses.batch_hard_triplet(features, labels, rows, margin=loss.margin, soft=loss.soft_margin).mean()

    both = [
        LossTerm(f"triplet_{spec.name}", triplet, loss.triplet_weight),
        LossTerm(f"ce_{spec.name}", cross_entropy),
    ]
    return [term for term in both if term.weight]


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe of a run that trains the network by itself."""
    return Recipe(tuple(terms(config, stream(config))))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the configuration asks of the network.

    Raises:
        InputError: it takes no such photos; or it is asked for faces, or for CSA, which it has no place for.
    """
    size = tuple(config.data.body_size)
    if size != BODY_SIZE:
        raise InputError(f"data.body_size is {size[0]}x{size[1]}; HACNN takes photos of 160x64 only.")
    check_body_only(config)


NAMES = (
    PublishedNames(
        "hacnn",
        ("conv.conv.weight", "ha1.soft_attn.spatial_attn.conv1.conv.weight", "local_conv1.stream1.0.conv.weight"),
        rename=((r"(inception\d|stream\d|fc_global|fc_local)_(\d)", r"\1.\2"),),
        fields=lambda shapes: {
            "data.body_size": BODY_SIZE,
            "model.feature_dim": shapes["fc_global.0.weight"][0],
            "model.align_corners": True,  # the zoo's weights were trained with torch < 1.3
        },
    ),
)
VARIANTS: dict[str, dict[str, Any]] = {
    "hacnn": {
        "model.name": "hacnn",
        "model.body": True,
        "model.face": "none",
        "model.attention": "none",
        "data.body_size": BODY_SIZE,
        "loss.label_smoothing": 0.1,
        "loss.triplet_weight": 0.0,
        "eval.flip": False,
        "eval.distance": "cosine",  # torchreid's Euclidean distance of unit vectors, which ranks alike
    },
}
