"""BoT, the bag of tricks: ResNet-50 with last stride 1, a BNNeck, smoothed cross-entropy and batch-hard triplet loss.

Luo et al., Bag of Tricks and a Strong Baseline for Deep Person Re-identification, CVPRW 2019. `bot` is LightMBN's
form of it, whose backbone is torchvision's; `bot_authors` the authors' own, whose stem has no ReLU, with centre loss.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax.losses import weighted_terms
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.check import check_resnet
from deskpro_jax.models.contract import Counts, LossTerm, PublishedNames, Recipe, StreamSpec
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

PARTS = ("global",)


class BagOfTricks(nn.Module):
    """ResNet, global average pooling, BNNeck and a classifier."""

    num_classes: int
    backbone: str = "resnet50"
    stem_relu: bool = True
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
            train: whether BatchNorm uses (and moves) the statistics of the valid rows.
            valid: rows that count [batch], all of them if absent.

        Returns:
            outputs: `logits` [1, batch, classes]; `features` before and `embeddings` after the neck [1, batch, dim].
            intermediates: `feature_map` [batch, height / 16, width / 16, dim], and those of `ResNetTrunk`.
        """
        network, stats = resnet(self.backbone), layers.at_least_float32(self.dtype)
        trunk = ResNetTrunk(network, self.stem_relu, self.attention, self.dtype, self.remat, name="trunk")
        x, middle = trunk(images, train=train, valid=valid)
        x = ResNetTail(network, 1, self.dtype, self.remat, name="tail")(x, train=train, valid=valid)
        pooled = x.astype(stats).mean((1, 2), keepdims=True)
        neck = layers.BatchNorm(frozen_bias=True, dtype=stats, name="neck")(pooled, train=train, valid=valid)
        init = initialisers.normal(0.001)
        logits = layers.Pointwise(self.num_classes, dtype=stats, kernel_init=init, name="classifier")(neck)
        outputs = {"logits": logits, "features": pooled, "embeddings": neck}
        return {name: value[None, :, 0, 0] for name, value in outputs.items()}, {**middle, "feature_map": x}


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> BagOfTricks:
    """Returns the network."""
    model = config.model
    return BagOfTricks(
        counts.identities, model.backbone, model.stem_relu, attention=attention, dtype=jnp.dtype(model.dtype)
    )


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream: one part."""
    return StreamSpec(name, image, PARTS, (0,), resnet(config.model.backbone).features(4))


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns cross-entropy, triplet loss and, where it has a weight, the centre loss."""
    return weighted_terms(config.loss, spec)


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe."""
    return Recipe(tuple(terms(config, stream(config))), label=label_of("trunk", "tail"))


check = check_resnet


_LIGHTMBN: dict[str, object] = {
    "model.backbone": "resnet50",
    "model.stem_relu": True,
    "data.body_size": (384, 128),
    "data.identities": 16,
    "data.images_per_identity": 4,
    "augment.erase": 0.5,
    "augment.erase_normalised": True,
    "loss.margin": 0.3,
    "loss.label_smoothing": 0.1,
    "loss.triplet_weight": 1.0,
    "train.base_lr": 3.5e-4,
    "train.reference_batch": 0,
    "train.weight_decay": 5e-4,
    "train.epochs": 120,
    "train.warmup_epochs": 10,
    "train.schedule": "step",
    "train.milestones": (40, 70),
}
_AUTHORS: dict[str, object] = {
    "model.stem_relu": False,
    "data.body_size": (256, 128),
    # Black around the photo, and the mean colour of ImageNet once more, in images that are normalised already.
    "augment.crop": 0.0,
    "augment.pad": 10,
    "augment.erase_fill": (0.485, 0.456, 0.406),
    "loss.centre_weight": 5e-4,
    "loss.centre_rate": 0.5,
    "train.warmup_factor": 0.01,
    "eval.flip": False,
}
VARIANTS: dict[str, dict[str, object]] = {"bot": _LIGHTMBN, "bot_authors": {**_LIGHTMBN, **_AUTHORS}}
DEBUG = {"model.backbone": "resnet14_x0_25"}

_OWN = r"(neck|classifier)\..*"
NAMES = (
    PublishedNames(
        "bot",
        (
            *("model.layer1.0.conv1.weight", "model.layer4.0.conv3.weight"),
            *("classifier.bn.weight", "classifier.bn.running_var", "classifier.classifier.weight"),
        ),
        rename=(
            *TORCHVISION,
            (r"^(conv1|bn1|layer\d)\.", r"model.\1."),
            (r"^classifier\.", "classifier.classifier."),
            (r"^neck\.", "classifier.bn."),
        ),
        ignored=r"model\.fc\.(weight|bias)",
        fields=lambda shapes: backbone_field(shapes, "model.conv1.weight"),
    ),
    PublishedNames(
        "bot_authors",
        (
            *("base.layer1.0.conv1.weight", "base.layer4.0.conv3.weight"),
            *("bottleneck.weight", "bottleneck.running_var", "classifier.weight"),
        ),
        rename=(*TORCHVISION, (r"^(conv1|bn1|layer\d)\.", r"base.\1."), (r"^neck\.", "bottleneck.")),
        fields=lambda shapes: backbone_field(shapes, "base.conv1.weight"),
        variant="bot_authors",
    ),
    imagenet_names(_OWN),
)
