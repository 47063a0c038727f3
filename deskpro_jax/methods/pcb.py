"""PCB, the part-based convolutional baseline: ResNet-50 with last stride 1, six stripes, a classifier for each.

Sun et al., Beyond Part Models: Person Retrieval with Refined Part Pooling, ECCV 2018. Network and names are those of
torchreid's `pcb_p6` and `pcb_p4`; `pcb` trains it as the paper says, `pcb_torchreid` with torchreid's losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax.losses import weighted_terms
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.check import check_resnet
from deskpro_jax.models.contract import Counts, LossTerm, PublishedNames, Recipe, StreamSpec
from deskpro_jax.models.osnet import ConvUnit
from deskpro_jax.models.resnet import (
    TORCHVISION,
    ResNetTail,
    ResNetTrunk,
    backbone_field,
    imagenet_names,
    label_of,
    resnet,
)
from deskpro_jax.models.streams import Streams
from deskpro_jax.models.stripes import stripes


class PCB(nn.Module):
    """ResNet, average pooling of stripes, one shared reduction, a classifier for each stripe."""

    num_classes: int
    backbone: str = "resnet50"
    parts: int = 6
    feature_dim: int = 256
    dropout: float = 0.5
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the network.

        Args:
            images: normalised; height and width are multiples of 16.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows, and dropout is on.
            valid: rows that count [batch], all of them if absent.

        Returns:
            outputs: `logits` [parts, batch, classes]; `embeddings` [parts, batch, dim], the stripes before the
                reduction; `features` [1, batch, parts * dim], the same at unit length each, all together, for the
                triplet loss.
            intermediates: `feature_map` [batch, height / 16, width / 16, dim], and those of `ResNetTrunk`.
        """
        network, stats = resnet(self.backbone), layers.at_least_float32(self.dtype)
        trunk = ResNetTrunk(network, attention=self.attention, dtype=self.dtype, remat=self.remat, name="trunk")
        x, middle = trunk(images, train=train, valid=valid)
        x = ResNetTail(network, 1, self.dtype, self.remat, name="tail")(x, train=train, valid=valid)
        pooled = jnp.stack([part.astype(stats).mean((1, 2)) for part in stripes(x, self.parts)], 1)
        pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)  # [batch, parts, channels]
        reduced = ConvUnit(self.feature_dim, dtype=self.dtype, name="conv5")(
            pooled[:, :, None], train=train, valid=valid
        )
        init = initialisers.normal(0.01)
        logits = [
            layers.Pointwise(self.num_classes, (), True, stats, init, name=f"classifier_{part}")(reduced[:, part, None])
            for part in range(self.parts)
        ]
        length = jnp.sqrt(jnp.maximum(jnp.square(pooled).sum(-1, keepdims=True), 1e-24))
        outputs = {
            "logits": jnp.stack(logits)[:, :, 0, 0],
            "features": jax.lax.collapse(pooled / length, 1)[None],
            "embeddings": pooled.transpose(1, 0, 2),
        }
        return outputs, {**middle, "feature_map": x}


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> PCB:
    """Returns the network."""
    model = config.model
    return PCB(
        counts.identities,
        model.backbone,
        model.parts,
        model.feature_dim,
        model.dropout,
        attention=attention,
        dtype=jnp.dtype(model.dtype),
    )


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream: the stripes from top to bottom; the triplet loss takes all of them as one vector."""
    parts = tuple(f"stripe_{part}" for part in range(config.model.parts))
    return StreamSpec(name, image, parts, (0,), resnet(config.model.backbone).features(4))


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns the cross-entropy of the stripes and, where it has a weight, the triplet loss."""
    return weighted_terms(config.loss, spec)


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe: two learning rates."""
    return Recipe(tuple(terms(config, stream(config))), label=label_of("trunk", "tail"))


check = check_resnet


_PAPER: dict[str, object] = {
    "model.backbone": "resnet50",
    "model.parts": 6,
    "model.feature_dim": 256,
    "model.dropout": 0.5,
    "data.body_size": (384, 128),
    "augment.flip": 0.5,
    "augment.crop": 0.0,
    "augment.erase": 0.0,
    "data.sampler": "images",
    "data.identities": 16,
    "data.images_per_identity": 4,
    "loss.triplet_weight": 0.0,
    "loss.label_smoothing": 0.0,
    "loss.outputs": "sum",
    "train.optimizer": "sgd",
    "train.momentum": 0.9,
    "train.weight_decay": 5e-4,
    "train.base_lr": 0.1,
    "train.reference_batch": 0,
    "train.pretrained_rate": 0.1,
    "train.epochs": 60,
    "train.warmup_epochs": 0,
    "train.schedule": "step",
    "train.milestones": (40,),
    "eval.flip": False,
}
VARIANTS: dict[str, dict[str, object]] = {
    "pcb": _PAPER,
    "pcb_p4": {**_PAPER, "model.parts": 4},
    "pcb_torchreid": {**_PAPER, "loss.label_smoothing": 0.1, "loss.outputs": "mean", "data.body_size": (256, 128)},
}
DEBUG = {"model.backbone": "resnet14_x0_25"}


def _fields(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        **backbone_field(shapes, "conv1.weight"),
        "model.parts": sum(name.startswith("classifier.") and name.endswith(".weight") for name in shapes),
        "model.feature_dim": shapes["conv5.layers.0.weight"][0],
    }


NAMES = (
    PublishedNames(
        "pcb",
        ("layer1.0.conv1.weight", "layer4.0.conv3.weight", "conv5.layers.0.weight", "classifier.0.weight"),
        rename=(
            *TORCHVISION,
            (r"^conv5\.conv\.", "conv5.layers.0."),
            (r"^conv5\.bn\.", "conv5.layers.1."),
            (r"^classifier_(\d+)\.", r"classifier.\1."),
        ),
        fields=_fields,
    ),
    imagenet_names(r"(conv5|classifier_\d+)\..*"),
)
