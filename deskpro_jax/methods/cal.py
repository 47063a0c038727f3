"""CAL, the clothes-based adversarial loss: features from which a classifier cannot tell a person's outfits apart.

Gu et al., Clothes-Changing Person Re-identification with RGB Modality Only, CVPR 2022. In each step the classifier of
clothes learns from the features as they are (Eq. 2); then the features learn against it (Eq. 5). It needs outfits in
training, none at test.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax.losses import clothes_terms, weighted_terms
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.check import check_resnet
from deskpro_jax.models.contract import Counts, LossTerm, Optimizer, PublishedNames, Recipe, StreamSpec
from deskpro_jax.models.max_avg import MaxAvgResNet
from deskpro_jax.models.resnet import TORCHVISION, backbone_field, imagenet_names, label_of, resnet
from deskpro_jax.models.streams import Streams


class CAL(nn.Module):
    """ResNet with maximum and average pooling, and a classifier of identities; that of clothes is the loss's."""

    num_classes: int
    backbone: str = "resnet50"
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
            outputs: `logits` [1, batch, classes]; `features`, which are also the `embeddings` [1, batch, dim].
            intermediates: `feature_map` [batch, height / 16, width / 16, dim / 2], and those of `ResNetTrunk`.
        """
        model = MaxAvgResNet(self.backbone, self.attention, self.dtype, self.remat, name="model")
        feature, x, middle = model(images, train=train, valid=valid)
        logits = identity_classifier(self.num_classes, feature.dtype)(feature[:, None, None])
        outputs = {"logits": logits[None, :, 0, 0], "features": feature[None], "embeddings": feature[None]}
        return outputs, {**middle, "feature_map": x}


def identity_classifier(classes: int, dtype: layers.Dtype) -> layers.Pointwise:
    """Returns the classifier of identities."""
    return layers.Pointwise(classes, (), True, dtype, initialisers.normal(0.001), name="classifier")


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> CAL:
    """Returns the network."""
    model = config.model
    return CAL(counts.identities, model.backbone, attention, jnp.dtype(model.dtype))


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream: one part."""
    return StreamSpec(name, image, ("global",), (0,), 2 * resnet(config.model.backbone).features(4))


def feature_of(spec: StreamSpec) -> clothes_terms.Features:
    """Returns the function from a step's values to the features of a stream of one part."""
    return lambda values: values.outputs[spec.name]["features"][0]


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns the losses of identities, of the clothes classifier, whose step comes first, and against it."""
    loss, feature = config.loss, feature_of(spec)
    own_rate = Optimizer(constant_rate=loss.clothes_rate, start_epoch=loss.clothes_epoch)
    clothes = clothes_terms.classification(loss, f"clothes_{spec.name}", feature, spec.dim, spec, own_rate, first=True)
    against = clothes_terms.adversarial(loss, f"adversarial_{spec.name}", feature, spec, clothes.name)
    return [clothes, *weighted_terms(loss, spec), against]


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe: two optimisers, that of the clothes classifier without a schedule."""
    return Recipe(tuple(terms(config, stream(config))), label=label_of("trunk", "tail"))


check = check_resnet


_RECIPE: dict[str, object] = {
    "model.backbone": "resnet50",
    "data.body_size": (384, 192),
    "data.identities": 8,
    "data.images_per_identity": 8,
    "augment.crop": 0.5,
    "augment.crop_scale": 1.125,
    "augment.erase": 0.5,
    "augment.erase_normalised": True,
    "loss.label_smoothing": 0.1,
    "loss.triplet_weight": 0.0,
    "loss.triplet_distance": "cosine",
    "loss.margin": 0.3,
    "train.base_lr": 3.5e-4,
    "train.reference_batch": 0,
    "train.weight_decay": 5e-4,
    "train.epochs": 60,
    "train.warmup_epochs": 0,
    "train.schedule": "step",
    "train.milestones": (20, 40),
}
VARIANTS: dict[str, dict[str, object]] = {
    "cal": _RECIPE,
    # LaST and DeepChange.
    "cal_last": {**_RECIPE, "data.identities": 16, "data.images_per_identity": 4, "loss.triplet_weight": 1.0},
}
DEBUG = {"model.backbone": "resnet14_x0_25", "loss.clothes_epoch": 1}

NAMES = (
    PublishedNames(
        "cal",
        ("base.0.weight", "base.4.0.conv1.weight", "base.7.0.conv3.weight", "bn.weight", "bn.running_var"),
        rename=(
            (r"^model\.", ""),
            *TORCHVISION,
            (r"^conv1\.", "base.0."),
            (r"^bn1\.", "base.1."),
            *((rf"^layer{layer}\.", f"base.{layer + 3}.") for layer in (1, 2, 3, 4)),
            (r"^feature_norm\.", "bn."),
            (r"^classifier\.", "classifier.classifier."),
        ),
        ignored=r"clothes_classifier\.weight",
        fields=lambda shapes: backbone_field(shapes, "base.0.weight"),
    ),
    imagenet_names(r"(model\.feature_norm|classifier)\..*", (r"^model\.", "")),
)
