"""ReIDCaps: DenseNet-121 with a capsule for each identity; ReIDCaps+: six of them, on parts of the photo.

Huang et al., Beyond Scalar Neuron: Adopting Vector-Neuron Capsules for Long-Term Person Re-Identification, TCSVT 2019.
Embeddings are the backbone's pooled features: the capsules, and the two classifiers beside them, only train it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax import losses
from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.capsules import CHANNELS, IdentityCapsules, PrimaryCapsules, lengths_of
from deskpro_jax.models.check import check_body_only
from deskpro_jax.models.contract import Counts, LossTerm, PublishedNames, Recipe, StepValues, StreamSpec
from deskpro_jax.models.densenet import TORCHVISION, DenseNet, backbone_field, densenet, imagenet_names
from deskpro_jax.models.image_parts import IMAGE_PARTS, part_rows, resize_rows
from deskpro_jax.models.resnet import label_of
from deskpro_jax.models.squeeze_excitation import SqueezeExcitation
from deskpro_jax.models.streams import Streams

WEIGHTS = (1.0, 0.5, 0.5, 1.0, 0.5, 1.0)  # of the squared distances of ReIDCaps+, in the order of `IMAGE_PARTS`
_LEAST = 64  # pixels of height and width for a place of capsules: two cells of the last map
_PLACES = 9  # of the published networks


class ReIDCaps(nn.Module):
    """DenseNet, a classifier on its pooled features (FSR), one on reweighted channels (SEA), and identity capsules."""

    num_classes: int
    backbone: str = "densenet121"
    routing: int = 4
    routing_over: str = "nodes"
    dropout: float = 0.25
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the network.

        Args:
            images: normalised, 224x224 as published.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows, and dropout drops.
            valid: rows that count [batch], all of them if absent.

        Returns:
            outputs: `logits` of FSR and SEA [2, batch, classes]; `features` [1, batch, dim], which are also the
                `embeddings`.
            intermediates: `lengths` of the identity capsules [1, batch, classes], `feature_map`, and those of
                `DenseNet`.
        """
        stats = layers.at_least_float32(self.dtype)
        base = DenseNet(densenet(self.backbone), self.attention, self.dtype, self.remat, name="base")
        x, middle = base(images, train=train, valid=valid)
        pooled = x.astype(stats).mean((1, 2))
        classifier = functools.partial(
            layers.Pointwise, self.num_classes, (), True, stats, kernel_init=initialisers.normal(0.001)
        )
        dropped = nn.Dropout(self.dropout)(pooled, deterministic=not train)
        fsr = classifier(name="classifier_fsr")(dropped[:, None, None])
        # The mean of a map whose channels have weights is the weighted mean of the map.
        excited = pooled * SqueezeExcitation(dtype=stats, name="seblock")(pooled)
        sea = classifier(name="classifier_sea")(excited[:, None, None])
        nodes = PrimaryCapsules(self.dtype, name="primary_capsules")(x)
        identities = IdentityCapsules(self.num_classes, self.routing, self.routing_over, name="classifier_capsules")
        features = pooled[None]
        outputs = {"logits": jnp.stack([fsr, sea])[:, :, 0, 0], "features": features, "embeddings": features}
        return outputs, {**middle, "lengths": lengths_of(identities(nodes))[None], "feature_map": x}


class ReIDCapsPlus(nn.Module):
    """Six independent networks like `one`: on thirds, halves and the whole of the photo, resized to `part_size`."""

    one: ReIDCaps
    part_size: tuple[int, int] = (224, 224)

    @property
    def attention(self) -> str:
        """Form of each network's CSA."""
        return self.one.attention

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the networks; arguments as of `ReIDCaps`.

        Returns:
            outputs: those of `ReIDCaps`, of one network after the other on the first axis.
            intermediates: `lengths` likewise; `boxes` [batch, parts, (top, left, bottom, right)], what each network
                sees, as fractions of the photo; the other ones are of the network on the whole photo.
        """
        outputs, lengths = [], []
        middle: dict[str, Array] = {}
        batch, height = images.shape[:2]
        parts = part_rows(height)
        for part, rows in parts.items():
            network = self.one.clone(parent=self, name=f"part_{part}")
            output, middle = network(resize_rows(images, rows, self.part_size), train=train, valid=valid)
            outputs.append(output)
            lengths.append(middle["lengths"])
        joined = {name: jnp.concatenate([output[name] for output in outputs]) for name in outputs[0]}
        boxes = jnp.asarray([(top / height, 0, bottom / height, 1) for top, bottom in parts.values()])
        boxes = jnp.broadcast_to(boxes, (batch, *boxes.shape))
        return joined, {**middle, "lengths": jnp.concatenate(lengths), "boxes": boxes}


_RECIPE: dict[str, object] = {
    "model.backbone": "densenet121",
    "model.dropout": 0.25,
    "data.interpolation": "bicubic",
    "data.sampler": "images",
    "data.identities": 5,
    "data.images_per_identity": 4,  # batches of 20
    "augment.crop": 0.0,
    "augment.erase": 0.0,
    "loss.triplet_weight": 0.0,
    "loss.ce_weight": 0.5,
    "train.epochs": 50,
    "train.base_lr": 0.001,
    "train.reference_batch": 0,
    "train.warmup_epochs": 0,
    "train.schedule": "step",
    "train.milestones": (40,),
    "train.weight_decay": 0.0,
    "train.pretrained_rate": 0.1,
    "eval.flip": False,
    "eval.average_precision": "trapezoid",
}
VARIANTS: dict[str, dict[str, object]] = {
    "reidcaps": {**_RECIPE, "data.body_size": (224, 224)},
    # Parts are cut from photos of Celeb-reID's own size.
    "reidcaps_plus": {**_RECIPE, "data.body_size": (256, 128), "model.image_parts": True},
}
DEBUG = {"model.backbone": "densenet12_x0_25", "data.body_size": (64, 64), "model.part_size": (64, 64)}


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> ReIDCaps | ReIDCapsPlus:
    """Returns the network, or the six of ReIDCaps+ in one module."""
    model = config.model
    one = ReIDCaps(
        counts.identities,
        model.backbone,
        model.routing,
        model.routing_over,
        model.dropout,
        attention,
        jnp.dtype(model.dtype),
    )
    return ReIDCapsPlus(one, tuple(model.part_size)) if model.image_parts else one


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream: one part, or the six of ReIDCaps+ with their weights."""
    parts, weights = (IMAGE_PARTS, WEIGHTS) if config.model.image_parts else (("global",), ())
    return StreamSpec(name, image, parts, tuple(range(len(parts))), densenet(config.model.backbone).features, weights)


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns the margin loss of the capsules, the cross-entropy of FSR and SEA, and others that have a weight."""

    def margin(values: StepValues) -> Array:
        lengths, labels = values.intermediates[spec.name]["lengths"], values.inputs["identity"]
        margins, absent = tuple(config.loss.capsule_margins), config.loss.capsule_absent
        each = losses.capsule_margin(lengths, labels, spec.rows(values.inputs), margins=margins, absent_weight=absent)
        return each.sum()

    return [LossTerm(f"margin_{spec.name}", margin), *losses.weighted_terms(config.loss, spec)]


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe; ImageNet's weights start the backbones, but for CSA."""
    return Recipe(tuple(terms(config, stream(config))), label=label_of("base"))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: they ask for another network than DenseNets on the photo; the message names the field.
    """
    densenet(config.model.backbone)
    check_body_only(config)
    field, size = ("data.body_size", config.data.body_size)
    if config.model.image_parts:
        field, size = ("model.part_size", config.model.part_size)
    if min(size) < _LEAST:
        raise InputError(f"{field} is {tuple(size)}; capsules need {_LEAST} pixels or more of height and width.")


_RENAME = (
    (r"\bpart_(\d_\d|all)\.", r"\1."),
    (r"\bbase\.", "base.features."),
    *TORCHVISION,
    (r"\bfc_(\d)\.", r"fc.\1."),
    (r"\bcapsules_(\d)\.", r"capsules.\1."),
    (r"\bclassifier_fsr\.", "classifer1.classifier."),
    (r"\bclassifier_sea\.", "classifer2.classifier."),
    (r"\bclassifier_capsules\.", "digit_capsules."),
    (r"^.*\battention\..*$", ""),
)


def _fields(prefix: str, size_field: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    """Returns the backbone, and a size of images that has as many capsules, where it is not the published one."""
    fields: dict[str, object] = {**backbone_field(shapes, f"{prefix}base.features.conv0.weight")}
    places = shapes[f"{prefix}digit_capsules.route_weights"][1] // CHANNELS
    if places != _PLACES:
        columns = next(count for count in range(math.isqrt(places), 0, -1) if places % count == 0)
        fields[size_field] = (_LEAST * places // columns, _LEAST * columns)
    return fields


def _names(variant: str, prefixes: tuple[str, ...], size_field: str) -> PublishedNames:
    ends = ("base.features.conv0.weight", "digit_capsules.route_weights", "primary_capsules.capsules.7.weight")
    return PublishedNames(
        variant,
        tuple(f"{prefix}{end}" for prefix in prefixes for end in ends),
        rename=_RENAME,
        ignored=r"(.*\.)?base\.classifier\.(weight|bias)",
        axes=((r"(.*\.)?digit_capsules\.route_weights", (1, 2, 3, 0)),),
        fields=functools.partial(_fields, prefixes[-1], size_field),
        variant=variant,
    )


NAMES = (
    _names("reidcaps", ("",), "data.body_size"),
    # Published as a file for each network: the six in one, each under the name of its part.
    _names("reidcaps_plus", tuple(f"{part}." for part in IMAGE_PARTS), "model.part_size"),
    *imagenet_names(r"(.*\.)?(seblock|primary_capsules|classifier\w*)\..*", (r"^(part_\w+\.)?base\.", "features.")),
)
