"""Semantic-guided pixel sampling: people in the clothes of others of the batch, whose features must not differ.

Shu et al., Semantic-guided Pixel Sampling for Cloth-Changing Person Re-identification, IEEE SPL 2021. The photos and
their copies in other clothes are one batch. `sps` has a whole feature, `sps_hpm` a horizontal pyramid of fifteen.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, PRNGKeyArray

from deskpro_jax.data.load import pixel_sampling
from deskpro_jax.losses import consistency, weighted_terms
from deskpro_jax.methods.bot import BagOfTricks
from deskpro_jax.models import initialisers, layers, pyramid
from deskpro_jax.models.check import check_resnet
from deskpro_jax.models.contract import Counts, Inputs, LossTerm, PublishedNames, Recipe, StepValues, StreamSpec
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


class PyramidNetwork(nn.Module):
    """ResNet, horizontal pyramid, and a classifier for each of its parts."""

    num_classes: int
    backbone: str = "resnet50"
    part_dim: int = 256
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the network.

        Args:
            images: normalised; height and width are multiples of 16, height 128 or more.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows.
            valid: rows that count [batch], all of them if absent.

        Returns:
            outputs: `logits` [15, batch, classes] and `features` [15, batch, part_dim], in the order of
                `pyramid.PARTS`; `embeddings` [1, batch, 15 * part_dim], all features as one vector.
            intermediates: `feature_map` [batch, height / 16, width / 16, channels], and those of `ResNetTrunk`.
        """
        network, stats = resnet(self.backbone), layers.at_least_float32(self.dtype)
        trunk = ResNetTrunk(network, attention=self.attention, dtype=self.dtype, remat=self.remat, name="trunk")
        x, middle = trunk(images, train=train, valid=valid)
        x = ResNetTail(network, 1, self.dtype, self.remat, name="tail")(x, train=train, valid=valid)
        features = pyramid.HorizontalPyramid(self.part_dim, stats, name="pyramid")(x, train=train, valid=valid)
        init = initialisers.normal(0.001)
        groups = (len(pyramid.PARTS),)
        classifier = layers.Pointwise(self.num_classes, groups, dtype=stats, kernel_init=init, name="classifier")
        outputs = {
            "logits": classifier(features[:, :, None, None])[:, :, 0, 0],
            "features": features,
            "embeddings": jax.lax.collapse(features.transpose(1, 0, 2), 1)[None],
        }
        return outputs, {**middle, "feature_map": x}


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> nn.Module:
    """Returns the network: BoT's, or that with a pyramid."""
    model, dtype = config.model, jnp.dtype(config.model.dtype)
    if model.pyramid:
        return PyramidNetwork(counts.identities, model.backbone, model.feature_dim, attention, dtype)
    return BagOfTricks(counts.identities, model.backbone, attention=attention, dtype=dtype)


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream: one part, of which a pyramid's fifteen features take the triplet loss."""
    parts, dim = len(pyramid.PARTS), resnet(config.model.backbone).features(4)
    if config.model.pyramid:
        return StreamSpec(name, image, ("pyramid",), tuple(range(parts)), parts * config.model.feature_dim)
    return StreamSpec(name, image, ("global",), (0,), dim)


def in_other_clothes(inputs: Inputs, sampled: Float[Array, "batch height width 3"]) -> dict[str, Array]:
    """Returns a batch followed by its copies, whose photos are `sampled`."""
    doubled = {name: jnp.concatenate([value, value]) for name, value in inputs.items() if name != "garments"}
    return doubled | {"body": jnp.concatenate([inputs["body"], sampled])}


def consistency_term(config: ml_collections.ConfigDict, spec: StreamSpec) -> LossTerm:
    """Returns the loss of the difference between the features of each photo and of its copy."""

    def compute(values: StepValues) -> Array:
        photos, copies = jnp.split(values.outputs[spec.name]["features"], 2, axis=1)
        return consistency(photos, copies, jnp.split(spec.rows(values.inputs), 2)[0]).sum()

    return LossTerm(f"consistency_{spec.name}", compute, config.loss.consistency_weight)


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe. There is no function `terms`: as a stream of DeSKPro it would have no copies."""
    spec, form = stream(config), config.augment.pixel_sampling
    losses = weighted_terms(config.loss, spec)
    if config.loss.consistency_weight:
        losses.append(consistency_term(config, spec))

    def augment(key: PRNGKeyArray, inputs: Inputs) -> dict[str, Array]:
        labels, valid = inputs["identity"], inputs["valid"]
        sampled = pixel_sampling.sample(key, inputs["body"], inputs["garments"], labels, valid, form)
        return in_other_clothes(inputs, sampled)

    return Recipe(tuple(losses), label=label_of("trunk", "tail"), fields=("garments",), augment=augment)


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: they ask for another network than a ResNet on the photo; the message names the field.
    """
    check_resnet(config)
    if config.model.pyramid:
        pyramid.check_height(config)


_RECIPE: dict[str, object] = {
    "model.backbone": "resnet50",
    "model.stem_relu": True,
    "data.body_size": (256, 128),
    "data.identities": 16,
    "data.images_per_identity": 4,
    "augment.flip": 0.0,
    "augment.crop": 0.0,
    "augment.pad": 10,
    "augment.erase": 0.0,
    **{f"augment.{name}": 0.1 for name in ("brightness", "contrast", "saturation", "hue")},
    "loss.label_smoothing": 0.1,
    "loss.triplet_weight": 1.0,
    "loss.margin": 0.3,
    "train.optimizer": "sgd",
    "train.momentum": 0.9,
    "train.weight_decay": 5e-4,
    "train.base_lr": 3.5e-4,
    "train.reference_batch": 0,
    "train.epochs": 60,
    "train.warmup_epochs": 10,
    "train.warmup_factor": 0.01,
    "train.schedule": "step",
    "train.milestones": (40, 80),
}
_PYRAMID: dict[str, object] = {
    "model.pyramid": True,
    "model.feature_dim": 256,
    "loss.consistency_weight": 0.0,
    "train.base_lr": 3.5e-3,
}
_RELEASED: dict[str, object] = {"augment.pixel_sampling": "released"}
VARIANTS: dict[str, dict[str, object]] = {
    "sps": _RECIPE,
    "sps_official": {**_RECIPE, **_RELEASED},
    "sps_hpm": {**_RECIPE, **_PYRAMID},
    "sps_hpm_official": {**_RECIPE, **_PYRAMID, **_RELEASED},
}
DEBUG = {"model.backbone": "resnet14_x0_25", "data.body_size": (pyramid.LEAST, 32)}

NAMES = (
    PublishedNames(
        "sps",
        (
            *("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv3.weight"),
            *("bottleneck.weight", "bottleneck.running_var", "classifier.weight"),
        ),
        rename=(*TORCHVISION, (r"^neck\.", "bottleneck.")),
        fields=lambda shapes: backbone_field(shapes, "conv1.weight"),
    ),
    PublishedNames(
        "sps_hpm",
        ("features.conv1.weight", "features.layer4.0.conv3.weight", "global_conv.weight", "pcb8_fc_list.7.weight"),
        stacks=(pyramid.stacks(r"^pyramid\."), pyramid.stacks(r"^classifier\.", "fc.")),
        rename=((r"^(trunk|tail)\.", "features."), *TORCHVISION, *pyramid.NAMES),
        ignored=r"features\.fc\.(weight|bias)",
        linear=r"(global_fc|pcb\d_fc_list\.\d)\.weight",
        fields=lambda shapes: {
            **backbone_field(shapes, "features.conv1.weight"),
            "model.feature_dim": shapes["global_conv.weight"][0],
        },
        variant="sps_hpm",
    ),
    imagenet_names(r"(neck|pyramid|classifier)\..*"),
)
