"""DeSKPro: a body stream with cloth-irrelevant attention and a face stream that learns from a teacher (Fig. 2).

Wu et al., Identity-Sensitive Knowledge Propagation for Cloth-Changing Person Re-Identification, ICIP 2022.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array

from deskpro_jax import losses, methods
from deskpro_jax.errors import InputError
from deskpro_jax.losses import identity_terms
from deskpro_jax.models.contract import Counts, LossTerm, PhaseSpec, Recipe, StepValues, StreamSpec
from deskpro_jax.models.lmbn import PARTS, TRIPLET_PARTS, LightMBN
from deskpro_jax.models.osnet import backbone
from deskpro_jax.models.streams import Streams

FACE_IMAGES = {"student": "face", "teacher": "restored_face"}
NAMES = ("deskpro", "lmbn")  # families of published weights, `weights.families`


def module(
    num_classes: int,
    *,
    body: bool = True,
    face: bool = True,
    face_image: str = "face",
    attention: str = "paper",
    **fields: Any,
) -> Streams:
    """Returns the networks that one phase trains, each a LightMBN.

    Args:
        num_classes: training identities.
        body: whether there is a body stream.
        face: whether there is a face stream.
        face_image: field of the batch that the face stream reads.
        attention: form of the body stream's CSA.
        **fields: of both networks, see `LightMBN`.
    """
    network = functools.partial(LightMBN, num_classes, **fields)
    return Streams(network(attention=attention) if body else None, network() if face else None, face_image)


def build(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module of the student phase: the body stream and the face student that `config.model` asks for."""
    model = config.model
    own = _module(model, counts, body=model.body and not model.body_method, face=model.face == "student")
    if not (model.body and model.body_method):
        return own
    return own.clone(body_stream=_body_network(config, counts))


def _body_network(config: ml_collections.ConfigDict, counts: Counts) -> nn.Module:
    """Returns another method's network that takes the place of the body network."""
    method, on_photos = _body_method(config)
    network: nn.Module = method.network(on_photos, counts, attention=config.model.attention)
    if config.model.attention != "none" and not hasattr(network, "attention"):
        raise InputError(
            f"model.body_method is {config.model.body_method!r}, which has no place for attention, and model.attention"
            f" is {config.model.attention!r}; expected 'none'."
        )
    return network


def build_teacher(config: ml_collections.ConfigDict, counts: Counts) -> Streams:
    """Returns the module of the teacher phase: one face stream that reads restored faces (section 2.2)."""
    if not config.teacher.method:
        return _module(config.model, counts, body=False, face=True, face_image="restored_face")
    method, on_faces = _teacher_method(config)
    return Streams(face_stream=method.network(on_faces, counts), face_image="restored_face")


def _module(model: ml_collections.ConfigDict, counts: Counts, **choices: Any) -> Streams:
    return module(
        counts.identities,
        backbone=model.backbone,
        os_streams=model.streams,
        attention=model.attention,
        feature_dim=model.feature_dim,
        drop_ratio=model.drop_ratio,
        dtype=jnp.dtype(model.dtype),
        **choices,
    )


def _body_method(config: ml_collections.ConfigDict) -> tuple[ModuleType, ml_collections.ConfigDict]:
    model = config.model
    return methods.of_stream(config, "model.body_method", model.body_method, model.body_options)


def _teacher_method(config: ml_collections.ConfigDict) -> tuple[ModuleType, ml_collections.ConfigDict]:
    on_faces = config.copy_and_resolve_references()
    on_faces.data.body_size = config.data.face_size
    return methods.of_stream(on_faces, "teacher.method", config.teacher.method, config.teacher.options)


def streams(config: ml_collections.ConfigDict) -> tuple[StreamSpec, ...]:
    """Returns the streams of the student phase."""
    face = (_stream(config, "face", "face"),) if config.model.face == "student" else ()
    return (*face, _body_stream(config)) if config.model.body else face


def _body_stream(config: ml_collections.ConfigDict) -> StreamSpec:
    if not config.model.body_method:
        return _stream(config, "body", "body")
    method, own = _body_method(config)
    spec: StreamSpec = method.stream(own, "body", "body")
    return spec


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
        if spec.name == "body" and config.model.body_method:
            method, own = _body_method(config)
            terms += method.terms(own, spec)
            continue
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
    teacher, student = values.teacher["face"]["logits"], values.outputs["face"]["logits"]
    if len(teacher) != len(student):  # another method: each part learns from the mean of the teacher's outputs
        teacher = teacher.mean(0, keepdims=True)
    return losses.knowledge_propagation(
        teacher,
        student,
        values.inputs["valid"] & values.inputs["has_face"],
        temperature=temperature,
    )


def phases(config: ml_collections.ConfigDict) -> tuple[PhaseSpec, ...]:
    """Returns the teacher phase where the run involves a teacher, then the student phase where it has streams."""
    result = []
    if needs_teacher(config):
        result.append(_teacher_phase(config))
    if specs := streams(config):
        init = {spec.name: spec.name for spec in specs}
        epochs, schedule_epochs = config.train.epochs, config.train.schedule_epochs
        other = {"body": str(_body_method(config)[1].model.name)} if config.model.body_method else {}
        result.append(
            PhaseSpec("student", build, specs, recipe(config), epochs, schedule_epochs, init=init, methods=other)
        )
    return tuple(result)


def _teacher_phase(config: ml_collections.ConfigDict) -> PhaseSpec:
    if config.teacher.method:
        method, own = _teacher_method(config)
        spec = method.stream(own, "face", "restored_face")
        terms = method.terms(own, spec)
    else:
        spec = _stream(config, "face", "restored_face")
        terms = identity_terms(config.loss, spec, float32_targets=True)
    return PhaseSpec(
        "teacher",
        build_teacher,
        (spec,),
        Recipe(tuple(terms), requires=("face",)),  # an image without a face has nothing to teach
        config.teacher.epochs,
        embeds=config.model.face == "teacher",
        init={"face": "teacher"},
        methods={"face": str(own.model.name)} if config.teacher.method else {},
    )


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what the fields of `config.model` ask for together.

    Raises:
        InputError: there is no stream left, the backbone is no OSNet, or another method cannot be a stream.
    """
    backbone(config.model.backbone)
    if config.model.body_method:
        _body_network(config, Counts(1))
    if config.teacher.method and needs_teacher(config):
        _teacher_method(config)
    if not config.model.body and config.model.face == "none":
        raise InputError("model.body is False and model.face is 'none': there is no stream left to train.")
