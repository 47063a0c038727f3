"""Networks as the streams of a method: one network for each image that is read."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import Inputs


class Streams(nn.Module):
    """A network on the photo, one on the face, or both; the parameters of each lie under the name of its field.

    A network maps normalised images [batch, height, width, 3], with `train` and the rows that count `valid` [batch], to
    `(outputs, intermediates)` by name, as `contract` says of one stream. In training it also gets the fields of the
    batch that it names in an attribute `reads`, each under its name, as far as the batch has them.

    Attributes:
        body_stream: reads the photo, `body`.
        face_stream: reads the face, `face_image`.
        face_image: field of the batch that the face network reads.
    """

    body_stream: nn.Module | None = None
    face_stream: nn.Module | None = None
    face_image: str = "face"

    def __call__(
        self, inputs: Inputs, *, train: bool = False
    ) -> tuple[dict[str, dict[str, Array]], dict[str, dict[str, Array]]]:
        """Runs the networks; without training, those whose image is there.

        Args:
            inputs: fields of a batch: the images, and in training `valid` and, for faces, `has_face` [batch] bool:
                padding stays out of all statistics, rows without a face out of the face network's.
            train: whether batch statistics are used, and the running ones moved.

        Returns:
            outputs: of each stream ("face", "body"), by name.
            intermediates: of each stream, by name.

        Raises:
            InputError: an image is missing in training, or every image is.
        """
        outputs: dict[str, dict[str, Array]] = {}
        middle: dict[str, dict[str, Array]] = {}
        valid, has_face = inputs.get("valid"), inputs.get("has_face")
        if self.face_stream is not None and _has(inputs, "face", self.face_image, train):
            rows = has_face if valid is None or has_face is None else valid & has_face
            outputs["face"], middle["face"] = self.face_stream(
                inputs[self.face_image], train=train, valid=rows, **_read(self.face_stream, inputs, train)
            )
        if self.body_stream is not None and _has(inputs, "body", "body", train):
            outputs["body"], middle["body"] = self.body_stream(
                inputs["body"], train=train, valid=valid, **_read(self.body_stream, inputs, train)
            )
        if not outputs:
            raise InputError(f"the batch has {', '.join(inputs) or 'no fields'}; expected the image of a stream.")
        return outputs, middle


def _read(network: nn.Module, inputs: Inputs, train: bool) -> dict[str, Array]:
    return {name: inputs[name] for name in getattr(network, "reads", ()) if train and name in inputs}


def _has(inputs: Inputs, stream: str, image: str, train: bool) -> bool:
    if image not in inputs and train:
        raise InputError(f"the model has a {stream} stream, and the batch has no field {image!r}.")
    return image in inputs


def with_choices(module: nn.Module, **choices: Any) -> nn.Module:
    """Returns a module whose fields of these names, and those of the networks in its fields, have other values.

    Args:
        module: any flax module.
        **choices: values by name of field (`remat`, `depthwise`, `num_classes`); a module without the field keeps
            what it has.
    """
    fields = {one.name: getattr(module, one.name) for one in dataclasses.fields(module) if one.name != "parent"}
    networks = {name: with_choices(value, **choices) for name, value in fields.items() if isinstance(value, nn.Module)}
    changed: dict[str, Any] = {**networks, **{name: value for name, value in choices.items() if name in fields}}
    return module.clone(**changed)
