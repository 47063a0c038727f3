"""DeSKPro: a body stream with cloth-irrelevant attention and a face stream, trained together (Fig. 2)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array

from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.attention import FORMS
from deskpro_jax.models.lmbn import LightMBN
from deskpro_jax.models.osnet import backbone, stream_names

DTYPES = ("float32", "bfloat16", "float64")
FACES = ("student", "teacher", "none")


class DeSKPro(nn.Module):
    """The networks that one phase trains: a body stream, a face stream, or both."""

    num_classes: int
    body: bool = True
    face: bool = True
    backbone: str = "x1_0"
    streams: str = "abcd"
    attention: str = "paper"
    feature_dim: int = 512
    drop_ratio: float = 0.33
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    def setup(self) -> None:
        stream = functools.partial(
            LightMBN,
            self.num_classes,
            self.backbone,
            self.streams,
            feature_dim=self.feature_dim,
            drop_ratio=self.drop_ratio,
            dtype=self.dtype,
            remat=self.remat,
        )
        if self.face:
            self.face_stream = stream()
        if self.body:
            self.body_stream = stream(attention=self.attention)

    def __call__(
        self,
        body: Array | None = None,
        face: Array | None = None,
        has_face: Array | None = None,
        valid: Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Array]]]:
        """Runs the streams.

        Args:
            body: normalised body images [batch, height, width, 3]; needed with a body stream.
            face: normalised face crops [batch, height, width, 3]; needed with a face stream.
            has_face: [batch] bool; in training, rows without a face stay out of the face stream's statistics.
            valid: [batch] bool; in training, rows that are padding stay out of the body stream's statistics.
            train: see `LightMBN`.

        Returns:
            outputs: for each stream ("face", "body") its `logits`, `features` and `embeddings`.
            intermediates: for each stream, by name, the maps listed in `LightMBN`.
        """
        outputs, middle = {}, {}
        if self.face:
            if face is None:
                raise InputError("the model has a face stream: give it face images (zeros where there is no face).")
            outputs["face"], middle["face"] = self.face_stream(face, train=train, valid=has_face)
        if self.body:
            if body is None:
                raise InputError("the model has a body stream: give it body images.")
            outputs["body"], middle["body"] = self.body_stream(body, train=train, valid=valid)
        return outputs, middle


def _check(model: ml_collections.ConfigDict) -> None:
    backbone(model.backbone)
    stream_names(model.streams)
    if model.attention not in (*FORMS, "none"):
        raise InputError(f"model.attention is {model.attention!r}; expected one of {', '.join(FORMS)} or none.")
    if model.face not in FACES:
        raise InputError(f"model.face is {model.face!r}; expected one of {', '.join(FACES)}.")
    if model.dtype not in DTYPES:
        raise InputError(f"model.dtype is {model.dtype!r}; expected one of {', '.join(DTYPES)}.")
    if not model.body and model.face == "none":
        raise InputError("model.body is False and model.face is 'none': there is no stream left to train.")


def student_model(model: ml_collections.ConfigDict, num_classes: int) -> DeSKPro:
    """Returns the model of the student phase: the body stream and the face student that `config.model` asks for.

    Raises:
        InputError: a field has a value that no model can be built from; the message names it.
    """
    _check(model)
    return _build(model, num_classes, body=model.body, face=model.face == "student")


def teacher_model(model: ml_collections.ConfigDict, num_classes: int) -> DeSKPro:
    """Returns the model of the teacher phase: one face stream that reads restored faces (section 2.2)."""
    _check(model)
    return _build(model, num_classes, body=False, face=True)


def _build(model: ml_collections.ConfigDict, num_classes: int, *, body: bool, face: bool) -> DeSKPro:
    return DeSKPro(
        num_classes,
        body=body,
        face=face,
        backbone=model.backbone,
        streams=model.streams,
        attention=model.attention,
        feature_dim=model.feature_dim,
        drop_ratio=model.drop_ratio,
        dtype=jnp.dtype(model.dtype),
    )


def init_variables(module: DeSKPro, seed: int) -> dict[str, Any]:
    """Initialises parameters and running statistics.

    Args:
        module: the model.
        seed: of the initial values.

    Returns:
        A dict of `params` and `batch_stats`, NumPy arrays; shapes do not depend on the size of images.
    """
    return initialisers.fill(*_init_and_shapes(module, jnp.zeros(()).dtype), seed)


@functools.lru_cache(maxsize=32)  # tracing takes as long as all else that reads or starts a network
def _init_and_shapes(module: DeSKPro, float_type: Any) -> tuple[Callable[[Array], Any], Any]:
    image = jnp.zeros((1, 32, 32, 3), float_type)
    init = lambda key: module.init(key, image, image, train=False)  # noqa: E731
    return init, initialisers.shapes_of(init)
