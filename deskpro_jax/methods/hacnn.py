"""HACNN: soft attention on the whole photo, hard attention that finds four regions, learned together.

Li, Zhu and Gong, Harmonious Attention Network for Person Re-Identification, CVPR 2018 (arXiv:1802.08122), as
torchreid computes it (https://github.com/KaiyangZhou/deep-person-reid).
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax.config import expect
from deskpro_jax.errors import InputError
from deskpro_jax.losses import weighted_terms
from deskpro_jax.models import initialisers, layers, sampling
from deskpro_jax.models.check import check_body_only
from deskpro_jax.models.contract import Counts, LossTerm, PublishedNames, Recipe, StreamSpec
from deskpro_jax.models.harmonious import REGIONS, HarmAttn
from deskpro_jax.models.inception import ConvBlock, InceptionA, InceptionB
from deskpro_jax.models.remat import run_block
from deskpro_jax.models.streams import Streams

# Channels out of each block, by `model.backbone`.
BACKBONES = {"hacnn": (128, 256, 384), "hacnn_x0_25": (32, 64, 96)}  # the published width, and one for short runs
BACKBONE = "hacnn"
BODY_SIZE = (160, 64)  # height and width of photos, the only ones
PARTS = ("global", "local")
REGION_SCALE = (1.0, 0.25)  # of the photo's width and height
REGION_SIZES = ((24, 28), (12, 14), (6, 7))  # height and width of a region's map in each block


class HACNN(nn.Module):
    """A global branch with soft attention, and a local one on four regions of what goes into each of its blocks."""

    num_classes: int
    channels: tuple[int, int, int] = BACKBONES[BACKBONE]
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
        BACKBONES[model.backbone],
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
    """Returns both branches' cross-entropies, and their triplet losses with `loss.triplet_weight`."""
    return weighted_terms(config.loss, spec)


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
    expect.choice(config, "model.backbone", tuple(BACKBONES))
    check_body_only(config)


def _backbone(channels: int) -> str:
    """Returns the backbone with so many channels out of its first block."""
    return next((name for name, widths in BACKBONES.items() if widths[0] == channels), BACKBONE)


NAMES = (
    PublishedNames(
        "hacnn",
        ("conv.conv.weight", "ha1.soft_attn.spatial_attn.conv1.conv.weight", "local_conv1.stream1.0.conv.weight"),
        rename=((r"(inception\d|stream\d|fc_global|fc_local)_(\d)", r"\1.\2"),),
        fields=lambda shapes: {
            "data.body_size": BODY_SIZE,
            "model.backbone": _backbone(4 * shapes["inception1.0.stream1.0.conv.weight"][0]),
            "model.feature_dim": shapes["fc_global.0.weight"][0],
            "model.align_corners": True,  # the zoo's weights were trained with torch < 1.3
        },
    ),
)
# The zoo's weights: from scratch, with torchreid's defaults where nothing is stated; random batches of 32.
_TORCHREID: dict[str, Any] = {
    "model.backbone": BACKBONE,
    "model.feature_dim": 512,
    "data.body_size": BODY_SIZE,
    "data.sampler": "images",
    "data.identities": 8,
    "data.images_per_identity": 4,
    "augment.crop_scale": 1.125,
    "augment.erase": 0.0,
    "loss.label_smoothing": 0.1,
    "loss.outputs": "mean",
    "loss.triplet_weight": 0.0,
    "train.base_lr": 0.0003,
    "train.reference_batch": 0,
    "train.warmup_epochs": 0,
    "train.epochs": 60,
    "train.schedule": "step",
    "train.milestones": (20, 40),
    "eval.flip": False,
    "eval.distance": "cosine",  # torchreid's is Euclidean, between unit vectors: they rank alike
}
VARIANTS: dict[str, dict[str, Any]] = {
    "hacnn": _TORCHREID,
    "hacnn_triplet": {
        **_TORCHREID,
        "data.sampler": "identities",
        "loss.triplet_weight": 1.0,
        "loss.margin": 0.3,
    },
}
DEBUG: dict[str, Any] = {"model.backbone": "hacnn_x0_25", "data.body_size": BODY_SIZE, "train.milestones": (1,)}
