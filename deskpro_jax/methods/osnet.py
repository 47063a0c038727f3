"""OSNet by itself: global features of a whole photo, softmax or softmax with triplet loss.

Zhou et al., Omni-Scale Feature Learning for Person Re-Identification, ICCV 2019; all widths and the IBN variant of
torchreid's model zoo.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array

from deskpro_jax.errors import InputError
from deskpro_jax.methods.deskpro import identity_terms
from deskpro_jax.models import layers
from deskpro_jax.models.check import check_backbone
from deskpro_jax.models.contract import Counts, Inputs, Recipe, StreamSpec
from deskpro_jax.models.osnet import BACKBONES, OSNet, backbone

PARTS = ("global",)
NAMES = ("osnet",)  # families of published weights, `weights.families`
BODY_SIZE = (256, 128)  # height and width of photos that torchreid's weights were trained with


class OSNetStream(nn.Module):
    """A whole OSNet as the body stream."""

    num_classes: int
    backbone: str = "x1_0"
    os_streams: str = "abcd"
    feature_dim: int = 512
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"
    depthwise: str = "auto"

    def setup(self) -> None:
        self.body_stream = OSNet(
            self.backbone, self.num_classes, self.feature_dim, self.os_streams, self.dtype, self.remat, self.depthwise
        )

    def __call__(
        self, inputs: Inputs, *, train: bool = False
    ) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Array]]]:
        """Runs the network.

        Args:
            inputs: `body`, normalised photos [batch, height, width, 3], and in training `valid` [batch] bool.
            train: whether BatchNorm uses (and moves) the statistics of the valid rows.

        Returns:
            outputs: of stream "body" the `logits` [1, batch, classes], and the `features` [1, batch, feature_dim],
                which are also its `embeddings`.
            intermediates: of stream "body" the `feature_map` [batch, height / 16, width / 16, channels].
        """
        valid = inputs.get("valid") if train else None
        logits, middle = self.body_stream(inputs["body"], train=train, valid=valid)
        stats = layers.at_least_float32(self.dtype)
        features = middle["features"].astype(stats)[None]
        outputs = {"logits": logits.astype(stats)[None], "features": features, "embeddings": features}
        return {"body": outputs}, {"body": {"feature_map": middle["feature_map"]}}


def build(config: ml_collections.ConfigDict, counts: Counts) -> OSNetStream:
    """Returns the module."""
    model = config.model
    return OSNetStream(
        counts.identities, model.backbone, model.streams, model.feature_dim, dtype=jnp.dtype(model.dtype)
    )


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the one stream, with one part."""
    return (StreamSpec("body", "body", PARTS, (0,), config.model.feature_dim),)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe: cross-entropy, and the triplet loss unless `loss.triplet_weight` is 0."""
    terms = identity_terms(config.loss, streams(config)[0])
    return Recipe(tuple(term for term in terms if term.weight))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: they ask for another network than an OSNet; the message names the field.
    """
    check_backbone(config, BACKBONES, backbone)
    model = config.model
    if backbone(model.backbone).trunk is not None:
        raise InputError(f"model.backbone is {model.backbone!r}; model.name 'osnet' takes an OSNet.")
    if not model.body or model.face != "none":
        raise InputError(
            f"model.name is 'osnet', which has a body stream only, and model.body is {model.body}, model.face is"
            f" {model.face!r}; expected True and 'none'."
        )
