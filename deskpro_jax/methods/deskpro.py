"""DeSKPro: a body stream with cloth-irrelevant attention and a face stream that learns from a teacher (Fig. 2).

Wu et al., Identity-Sensitive Knowledge Propagation for Cloth-Changing Person Re-Identification, ICIP 2022.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array

from deskpro_jax import losses
from deskpro_jax.errors import InputError
from deskpro_jax.losses import identity_terms
from deskpro_jax.models import layers
from deskpro_jax.models.check import check_backbone
from deskpro_jax.models.contract import Counts, Inputs, LossTerm, PhaseSpec, Recipe, StepValues, StreamSpec
from deskpro_jax.models.lmbn import PARTS, TRIPLET_PARTS, LightMBN
from deskpro_jax.models.osnet import BACKBONES, backbone

FACE_IMAGES = {"student": "face", "teacher": "restored_face"}
NAMES = ("deskpro", "lmbn")  # families of published weights, `weights.families`


class DeSKPro(nn.Module):
    """The networks that one phase trains: a body stream, a face stream, or both."""

    num_classes: int
    body: bool = True
    face: bool = True
    backbone: str = "x1_0"
    os_streams: str = "abcd"
    attention: str = "paper"
    feature_dim: int = 512
    drop_ratio: float = 0.33
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"
    face_image: str = "face"
    depthwise: str = "auto"

    def setup(self) -> None:
        stream = functools.partial(
            LightMBN,
            self.num_classes,
            self.backbone,
            self.os_streams,
            feature_dim=self.feature_dim,
            drop_ratio=self.drop_ratio,
            dtype=self.dtype,
            remat=self.remat,
            depthwise=self.depthwise,
        )
        if self.face:
            self.face_stream = stream()
        if self.body:
            self.body_stream = stream(attention=self.attention)

    def __call__(
        self, inputs: Inputs, *, train: bool = False
    ) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Array]]]:
        """Runs the streams; without training, those whose image is there.

        Args:
            inputs: fields of a batch: `body` and `face` (or `face_image`), normalised images [batch, height, width, 3].
                In training also `valid` and `has_face` [batch] bool: padding stays out of all statistics, rows
                without a face out of the face stream's.
            train: see `LightMBN`.

        Returns:
            outputs: for each stream ("face", "body") its `logits`, `features` and `embeddings`.
            intermediates: for each stream, by name, the maps listed in `LightMBN`.

        Raises:
            InputError: an image is missing in training, or every image is.
        """
        outputs, middle = {}, {}
        valid, has_face = inputs.get("valid"), inputs.get("has_face")
        if self.face and self._has(inputs, "face", self.face_image, train):
            rows = has_face if valid is None or has_face is None else valid & has_face
            outputs["face"], middle["face"] = self.face_stream(inputs[self.face_image], train=train, valid=rows)
        if self.body and self._has(inputs, "body", "body", train):
            outputs["body"], middle["body"] = self.body_stream(inputs["body"], train=train, valid=valid)
        if not outputs:
            raise InputError(f"the batch has {', '.join(inputs) or 'no fields'}; expected the image of a stream.")
        return outputs, middle

    def _has(self, inputs: Inputs, stream: str, image: str, train: bool) -> bool:
        if image not in inputs and train:
            raise InputError(f"the model has a {stream} stream, and the batch has no field {image!r}.")
        return image in inputs


def build(config: ml_collections.ConfigDict, counts: Counts) -> DeSKPro:
    """Returns the module of the student phase: the body stream and the face student that `config.model` asks for."""
    return _module(config.model, counts, body=config.model.body, face=config.model.face == "student")


def build_teacher(config: ml_collections.ConfigDict, counts: Counts) -> DeSKPro:
    """Returns the module of the teacher phase: one face stream that reads restored faces (section 2.2)."""
    return _module(config.model, counts, body=False, face=True, face_image="restored_face")


def _module(
    model: ml_collections.ConfigDict, counts: Counts, *, body: bool, face: bool, face_image: str = "face"
) -> DeSKPro:
    return DeSKPro(
        counts.identities,
        body=body,
        face=face,
        backbone=model.backbone,
        os_streams=model.streams,
        attention=model.attention,
        feature_dim=model.feature_dim,
        drop_ratio=model.drop_ratio,
        dtype=jnp.dtype(model.dtype),
        face_image=face_image,
    )


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the streams of the student phase."""
    face = (_stream(config, "face", "face"),) if config.model.face == "student" else ()
    return (*face, _stream(config, "body", "body")) if config.model.body else face


def _stream(config: ml_collections.ConfigDict, name: str, image: str) -> StreamSpec:
    return StreamSpec(name, image, PARTS, TRIPLET_PARTS, config.model.feature_dim)


def recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Returns the recipe of the student phase.

    Eq. 7: lambda L_att + L_trip + alpha L_fkp + (1 - alpha) L_ce^s + L_ce^g.
    """
    loss, specs = config.loss, streams(config)
    distils = distils_face(config)
    terms = []
    for spec in specs:
        ce_weight = 1.0 - loss.alpha if distils and spec.name == "face" else 1.0
        terms += identity_terms(loss, spec, ce_weight, float32_targets=True)
    fields: tuple[str, ...] = ()
    if config.model.body:
        fields = ("cloth_mask",)
        if config.model.attention != "none" and loss.attention_weight:
            terms.append(LossTerm("attention", functools.partial(_attention_loss, loss), loss.attention_weight))
    if distils:
        terms.append(LossTerm("kd", functools.partial(_face_knowledge, loss.temperature), loss.alpha))
    return Recipe(tuple(terms), fields=fields, teacher="teacher" if distils else "")


def distils_face(config: ml_collections.ConfigDict) -> bool:
    """Returns whether the face student learns from the teacher."""
    return bool(config.model.face == "student" and config.loss.alpha > 0)


def needs_teacher(config: ml_collections.ConfigDict) -> bool:
    """Returns whether a run involves the teacher: for L_fkp, or as the face stream itself (DeSKPro*)."""
    return config.model.face == "teacher" or distils_face(config)


def _attention_loss(loss: ml_collections.ConfigDict, values: StepValues) -> Array:
    inputs = values.inputs
    return losses.attention_loss(
        values.intermediates["body"]["attention"],
        inputs["cloth_mask"],
        inputs["valid"] & inputs["has_mask"],
        epsilon=loss.mask_epsilon,
        rule=loss.mask_rule,
    )


def _face_knowledge(temperature: float, values: StepValues) -> Array:
    return losses.knowledge_propagation(
        values.teacher["face"]["logits"],
        values.outputs["face"]["logits"],
        values.inputs["valid"] & values.inputs["has_face"],
        temperature=temperature,
    )


def phases(config: ml_collections.ConfigDict) -> tuple[PhaseSpec, ...]:
    """Returns the teacher phase where the run involves a teacher, then the student phase where it has streams."""
    result = []
    if needs_teacher(config):
        spec = _stream(config, "face", "restored_face")
        # An image without a face has nothing to teach.
        teaching = Recipe(tuple(identity_terms(config.loss, spec, float32_targets=True)), requires=("face",))
        embeds = config.model.face == "teacher"
        init = {"face": "teacher"}
        result.append(
            PhaseSpec("teacher", build_teacher, (spec,), teaching, config.teacher.epochs, embeds=embeds, init=init)
        )
    if specs := streams(config):
        init = {spec.name: spec.name for spec in specs}
        epochs, schedule_epochs = config.train.epochs, config.train.schedule_epochs
        result.append(PhaseSpec("student", build, specs, recipe(config), epochs, schedule_epochs, init=init))
    return tuple(result)


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: there is no stream left, or the backbone is no OSNet.
    """
    check_backbone(config, BACKBONES, backbone)
    if not config.model.body and config.model.face == "none":
        raise InputError("model.body is False and model.face is 'none': there is no stream left to train.")
