"""FIRe2: clusters of each identity's images as finer classes, and stripes that take each other's appearance.

Wang et al., Exploring Fine-Grained Representation and Recomposition for Cloth-Changing Person Re-Identification, TIFS
2024. Network, names and recipe are those of its code: cross-entropy alone at first, everything else once it clusters.
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax import losses
from deskpro_jax.losses.fine_classes import FIELDS, attribute_term, clustering
from deskpro_jax.losses.terms import from_epoch
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.check import check_resnet
from deskpro_jax.models.contract import (
    PRETRAINED,
    Counts,
    LossTerm,
    Optimizer,
    PublishedNames,
    Recipe,
    StepValues,
    StreamSpec,
)
from deskpro_jax.models.recomposition import draw_donors, recompose
from deskpro_jax.models.resnet import (
    ResNetTail,
    ResNetTrunk,
    backbone_field,
    imagenet_names,
    label_of,
    resnet,
)
from deskpro_jax.models.streams import Streams
from deskpro_jax.models.stripes import pool


class Head(nn.Module):
    """Largest value and mean of a map, BNNeck and a classifier."""

    num_classes: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool, valid: Array | None
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch classes"]]:
        """Returns the features after the neck, and the logits."""
        pooled = jnp.concatenate([pool(x, kind).astype(self.dtype) for kind in ("max", "avg")], -1)
        neck = layers.BatchNorm(frozen_bias=True, dtype=self.dtype, name="neck")(pooled, train=train, valid=valid)
        init = initialisers.normal(0.001)
        logits = layers.Pointwise(self.num_classes, dtype=self.dtype, kernel_init=init, name="classifier")(neck)
        return neck[:, 0, 0], logits[:, 0, 0]


class FIRe(nn.Module):
    """ResNet and a head; in training with fine classes another head on the recomposed map (FAR)."""

    num_classes: int
    backbone: str = "resnet50"
    parts: int = 2
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"
    reads: ClassVar[tuple[str, ...]] = FIELDS[:1]

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        *,
        train: bool,
        valid: Array | None = None,
        fine_own: Array | None = None,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs the network.

        Args:
            images: normalised; height and width are multiples of 16.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows.
            valid: rows that count [batch], all of them if absent.
            fine_own: fine class of each row [batch]; nothing is recomposed without.

        Returns:
            outputs: `logits` [1, batch, classes]; `features` after the neck [1, batch, dim], which are also the
                `embeddings`; with fine classes `recomposed` [1, batch, classes], logits of the recomposed map.
            intermediates: `feature_map` [batch, height / 16, width / 16, dim / 2], and those of `ResNetTrunk`.
        """
        network, stats = resnet(self.backbone), layers.at_least_float32(self.dtype)
        trunk = ResNetTrunk(network, attention=self.attention, dtype=self.dtype, remat=self.remat, name="trunk")
        x, middle = trunk(images, train=train, valid=valid)
        x = ResNetTail(network, 1, self.dtype, self.remat, name="tail")(x, train=train, valid=valid)
        features, logits = Head(self.num_classes, stats, name="head")(x, train=train, valid=valid)
        outputs = {"logits": logits[None], "features": features[None], "embeddings": features[None]}
        recomposition = Head(self.num_classes, stats, name="recomposition")
        if fine_own is not None:
            mixed = recompose(x, self.donors(fine_own, valid))
            outputs["recomposed"] = recomposition(mixed, train=train, valid=valid)[1][None]
        elif self.is_initializing():
            recomposition(x, train=False, valid=None)
        return outputs, {**middle, "feature_map": x}

    def donors(self, fine_own: Array, valid: Array | None) -> Array:
        """Returns the rows [parts, batch] whose appearance the stripes of each row take."""
        rows = jnp.ones(fine_own.shape, bool) if valid is None else valid
        return draw_donors(self.make_rng("dropout"), fine_own, rows, self.parts)


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> FIRe:
    """Returns the network."""
    model = config.model
    return FIRe(counts.identities, model.backbone, model.parts, attention=attention, dtype=jnp.dtype(model.dtype))


def stream(config: ml_collections.ConfigDict, name: str = "body", image: str = "body") -> StreamSpec:
    """Returns the stream: one part, the largest values and the means of the last map."""
    return StreamSpec(name, image, ("global",), (0,), 2 * resnet(config.model.backbone).features(4))


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns the cross-entropy; the triplet loss and those of fine classes, which begin with the clustering."""
    loss = config.loss

    def recomposition(values: StepValues) -> Array:
        output = values.outputs[spec.name]
        if "recomposed" not in output:
            return jnp.zeros(())
        labels, rows = values.inputs["identity"], spec.rows(values.inputs)
        return losses.cross_entropy(output["recomposed"], labels, rows, smoothing=loss.label_smoothing).sum()

    weight = from_epoch(loss.triplet_start, loss.recomposition_weight)
    further = [attribute_term(loss, spec), LossTerm(f"recomposition_{spec.name}", recomposition, weight)]
    return [*losses.weighted_terms(loss, spec), *further]


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe: recomposition waits for the clustering, without weight decay."""
    spec, of_backbone = stream(config), label_of("trunk", "tail")
    optimizers = {
        "": Optimizer(),
        PRETRAINED: Optimizer(rate=config.train.pretrained_rate),
        "recomposition": Optimizer(start_epoch=config.loss.triplet_start),
    }
    return Recipe(
        tuple(terms(config, spec)),
        optimizers,
        lambda path: "recomposition" if "recomposition" in path else of_backbone(path),
        between_epochs=clustering(config.loss, spec),
    )


check = check_resnet


VARIANTS: dict[str, dict[str, object]] = {
    "fire": {
        "model.backbone": "resnet50",
        "model.parts": 2,
        "data.body_size": (384, 192),
        "data.identities": 4,
        "data.images_per_identity": 8,
        "augment.crop": 0.0,
        "augment.pad": 10,
        "augment.erase": 0.5,
        "augment.erase_normalised": True,
        "augment.erase_fill": (0.0, 0.0, 0.0),
        "loss.margin": 0.3,
        "loss.label_smoothing": 0.1,
        "loss.triplet_weight": 1.0,
        "loss.triplet_start": 25,
        "train.base_lr": 3.5e-4,
        "train.reference_batch": 0,
        "train.weight_decay": 5e-4,
        "train.epochs": 80,
        "train.warmup_epochs": 10,
        "train.warmup_factor": 0.01,
        "train.schedule": "step",
        "train.milestones": (20, 40, 60),
    }
}
DEBUG = {"model.backbone": "resnet14_x0_25", "loss.triplet_start": 1}

NAMES = (
    PublishedNames(
        "fire",
        (
            *("backbone.4.0.conv1.weight", "backbone.7.0.conv3.weight", "bottleneck.running_var"),
            *("FAR_bottleneck.running_var", "FAR_classifier.weight"),
        ),
        rename=(
            (r"^trunk\.conv1\.", "backbone.0."),
            (r"^trunk\.bn1\.", "backbone.1."),
            *((rf"\blayer{n}_(\d+)\.", rf"backbone.{n + 3}.\1.") for n in (1, 2, 3, 4)),
            (r"^(trunk|tail)\.", ""),
            (r"\bdownsample_", "downsample."),
            (r"^head\.neck\.", "bottleneck."),
            (r"^head\.classifier\.", "classifier.classifier."),  # `classifier_state_dict` of a checkpoint
            (r"^recomposition\.neck\.", "FAR_bottleneck."),
            (r"^recomposition\.classifier\.", "FAR_classifier."),
        ),
        ignored=r"fg_classifier\.weight",
        linear=r"(classifier|FAR)[._]classifier\.weight",
        fields=lambda shapes: backbone_field(shapes, "backbone.0.weight"),
    ),
    imagenet_names(r"(head|recomposition)\..*"),
)
