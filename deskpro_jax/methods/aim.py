"""AIM, causality-inspired debiasing of clothes: a second network learns what clothes show, and is taken away.

Yang et al., Good is Bad: Causality Inspired Cloth-debiasing for Cloth-changing Person Re-identification, CVPR 2023.
Only the first network, CAL's, gives embeddings; the branch of clothes, the fusion of both and classifiers train it.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from deskpro_jax.losses import clothes_terms, cross_entropy
from deskpro_jax.losses.cosine import unit
from deskpro_jax.losses.terms import from_epoch
from deskpro_jax.methods import cal
from deskpro_jax.models import initialisers, layers, pyramid
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
from deskpro_jax.models.max_avg import MaxAvgResNet, feature_norm
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

_ATTENTIONS = 8  # maps of the fusion
_FUSION = "fusion"


class ClothesBranch(nn.Module):
    """ResNet and horizontal pyramid, joined to a feature of clothes (the code's PM)."""

    dim: int
    backbone: str
    part_dim: int
    dtype: layers.Dtype
    remat: str

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None
    ) -> tuple[Float[Array, "batch dim"], Float[Array, "batch rows columns channels"]]:
        """Returns the feature and the last map."""
        network, stats = resnet(self.backbone), layers.at_least_float32(self.dtype)
        trunk = ResNetTrunk(network, dtype=self.dtype, remat=self.remat, name="trunk")
        x, _ = trunk(images, train=train, valid=valid)
        x = ResNetTail(network, 1, self.dtype, self.remat, name="tail")(x, train=train, valid=valid)
        parts = pyramid.HorizontalPyramid(self.part_dim, stats, name="pyramid")(x, train=train, valid=valid)
        joined = jax.lax.collapse(parts.transpose(1, 0, 2), 1)[:, None, None]
        init = initialisers.normal(0.001)
        feature = layers.Pointwise(self.dim, dtype=stats, kernel_init=init, name="trans")(joined)
        return feature_norm(stats, "feature_norm")(feature, train=train, valid=valid)[:, 0, 0], x


class Fusion(nn.Module):
    """Bilinear pooling of the first network's map by attentions from that of clothes."""

    dim: int
    dtype: layers.Dtype

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch rows columns channels"],
        clothes: Float[Array, "batch rows columns channels"],
        *,
        train: bool,
        valid: Array | None,
    ) -> Float[Array, "batch dim"]:
        """Returns the fused feature; no gradient flows into the map of clothes."""
        clothes = jax.lax.stop_gradient(clothes)
        attention = layers.Pointwise(_ATTENTIONS, dtype=self.dtype, name="attention_conv")(clothes)
        norm = layers.BatchNorm(dtype=self.dtype, eps=1e-3, name="attention_norm")
        attention = nn.relu(norm(attention, train=train, valid=valid))
        pooled = jnp.einsum("bhwk,bhwc->bkc", attention, x.astype(self.dtype)) / (x.shape[1] * x.shape[2])
        pooled = jax.lax.collapse(pooled, 1)
        rooted = unit(jnp.sign(pooled) * jnp.sqrt(jnp.abs(pooled) + 1e-12))[:, None, None]
        init = initialisers.normal(0.001)
        feature = layers.Pointwise(self.dim, dtype=self.dtype, kernel_init=init, name="linear")(rooted)
        return feature_norm(self.dtype, "feature_norm")(feature, train=train, valid=valid)[:, 0, 0]


class AIM(nn.Module):
    """The network of CAL, the branch of clothes, their fusion, and one classifier of identities."""

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
        """Runs the networks.

        Args:
            images: normalised; height and width are multiples of 16, height 128 or more.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows.
            valid: rows that count [batch], all of them if absent.

        Returns:
            outputs: `logits` [1, batch, classes]; `features`, which are also the `embeddings` [1, batch, dim].
            intermediates: `clothes_feature` and `fused_feature` [batch, dim], `fused_logits` [batch, classes],
                `feature_map` [batch, height / 16, width / 16, dim / 2], and those of `ResNetTrunk`.
        """
        stats = layers.at_least_float32(self.dtype)
        model = MaxAvgResNet(self.backbone, self.attention, self.dtype, self.remat, name="model")
        feature, x, middle = model(images, train=train, valid=valid)
        dim = feature.shape[-1]
        branch = ClothesBranch(dim, self.backbone, self.part_dim, self.dtype, self.remat, name="clothes_branch")
        clothes_feature, clothes = branch(images, train=train, valid=valid)
        fused = Fusion(dim, stats, name=_FUSION)(x, clothes, train=train, valid=valid)
        logits = cal.identity_classifier(self.num_classes, stats)(jnp.stack([feature, fused])[:, :, None])[:, :, 0]
        outputs = {"logits": logits[:1], "features": feature[None], "embeddings": feature[None]}
        middle = {**middle, "clothes_feature": clothes_feature, "fused_feature": fused, "fused_logits": logits[1]}
        return outputs, {**middle, "feature_map": x}


def network(config: ml_collections.ConfigDict, counts: Counts, *, attention: str = "none") -> AIM:
    """Returns the networks."""
    model = config.model
    return AIM(counts.identities, model.backbone, model.feature_dim, attention, jnp.dtype(model.dtype))


stream = cal.stream


def terms(config: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns CAL's losses, those of the branch of clothes, and the loss of logits without what was fused."""
    loss, name = config.loss, spec.name

    def clothes_feature(values: StepValues) -> Array:
        return values.intermediates[name]["clothes_feature"]

    def counterfactual(values: StepValues) -> Array:
        logits = values.outputs[name]["logits"][0] - values.intermediates[name]["fused_logits"]
        labels, rows = values.inputs["identity"], spec.rows(values.inputs)
        return cross_entropy(logits, labels, rows, smoothing=loss.label_smoothing)

    (clothes, *others), feature = cal.terms(config, spec), cal.feature_of(spec)
    branch = clothes_terms.classification(loss, f"clothes2_{name}", clothes_feature, spec.dim, spec, Optimizer())
    both = (branch.name, clothes_feature), (clothes.name, feature)
    return [
        clothes,
        *others,
        branch,
        clothes_terms.divergence(loss, f"divergence_{name}", spec, *both),
        LossTerm(f"counterfactual_{name}", counterfactual, from_epoch(loss.clothes_epoch, loss.counterfactual_weight)),
    ]


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module."""
    return Streams(body_stream=network(config, counts))


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream."""
    return (stream(config),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe: the fusion starts with the losses that need it, the classifier of clothes has no schedule."""
    pretrained = label_of("trunk", "tail")
    optimisers = {
        "": Optimizer(),
        PRETRAINED: Optimizer(rate=config.train.pretrained_rate),
        _FUSION: Optimizer(start_epoch=config.loss.clothes_epoch),
    }
    label = lambda path: _FUSION if _FUSION in path else pretrained(path)  # noqa: E731
    return Recipe(tuple(terms(config, stream(config))), optimisers, label)


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: they ask for another network than ResNets on the photo; the message names the field.
    """
    cal.check(config)
    pyramid.check_height(config)


VARIANTS: dict[str, dict[str, object]] = {
    "aim": {**cal.VARIANTS["cal"], "model.feature_dim": 256, "train.epochs": 100},
}
DEBUG = {**cal.DEBUG, "data.body_size": (pyramid.LEAST, 32)}

_MODEL = (
    (r"^model\.", ""),
    *TORCHVISION,
    (r"^feature_norm\.", "bn."),
    (r"^classifier\.", "classifier.classifier."),
)
_OWN = r"(clothes_branch\.(pyramid|trans|feature_norm)|model\.feature_norm|fusion|classifier)\..*"
NAMES = (
    PublishedNames(
        "aim",
        (
            *("model2.features.conv1.weight", "model2.trans.weight", "model2.global_conv.weight"),
            *("fuse.linear.weight", "fuse.attentions.conv.weight", "model.conv1.weight"),
        ),
        stacks=(pyramid.stacks(r"\bpyramid\."),),
        rename=(
            (r"^clothes_branch\.(trunk|tail)\.", "model2.features."),
            (r"^model\.(trunk|tail)\.", "model."),
            *TORCHVISION,
            (r"^clothes_branch\.", "model2."),
            (r"^fusion\.attention_conv\.", "fuse.attentions.conv."),
            (r"^fusion\.attention_norm\.", "fuse.attentions.bn."),
            (r"^fusion\.", "fuse."),
            (r"\bfeature_norm\.", "bn."),
            *pyramid.NAMES,
            (r"^classifier\.", "classifier.classifier."),
        ),
        ignored=r"model2\.features\.fc\.(weight|bias)|clothes_classifier2?\.weight",
        linear=r"(classifier\.classifier|model2\.trans|fuse\.linear)\.weight",
        fields=lambda shapes: {
            **backbone_field(shapes, "model.conv1.weight"),
            "model.feature_dim": shapes["model2.global_conv.weight"][0],
        },
    ),
    # What its checkpoints have as `model_state_dict`: all that embeddings depend on.
    PublishedNames(
        "aim_model",
        ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv3.weight", "bn.weight", "bn.running_var"),
        rename=((r"^(clothes_branch|fusion)\..*$", ""), *_MODEL),
        fields=lambda shapes: backbone_field(shapes, "conv1.weight"),
    ),
    imagenet_names(_OWN, (r"^(model|clothes_branch)\.", "")),
)
