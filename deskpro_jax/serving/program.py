"""The function that is served: from images of a whole batch to embeddings, with the networks of a workdir inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deskpro_jax.data.load import augment
from deskpro_jax.errors import InputError
from deskpro_jax.models import embeddings
from deskpro_jax.models.lmbn import PARTS, LightMBN
from deskpro_jax.serving.fold import fold, folded_norms
from deskpro_jax.weights.families import Stream
from deskpro_jax.workdir.stored import Networks, describe, read_networks

# What may be served -> the networks it takes, in the order of an embedding.
CHOICES = {
    "both": ("student", "body"),
    "body": ("body",),
    "face": ("student",),
    "teacher": ("teacher",),
    "star": ("teacher", "body"),  # DeSKPro*: restored faces
}
IMAGES = ("uint8", "float")
_SIZES = {"body": (384, 128), "face": (224, 224)}  # of weights that were converted and say nothing of images
_MULTIPLE = 16  # the network halves a map four times


@dataclass(frozen=True)
class Input:
    """One argument of the program; the first axis is the batch."""

    name: str  # "body", "face" or "has_face"
    dtype: str
    shape: tuple[int, ...]  # without the batch


@dataclass(frozen=True)
class Program:
    """Networks, and how they are served.

    Attributes:
        networks: what each network is, in the order of the embedding.
        variables: of each network by role, BatchNorms folded (`fold.fold`), the classifier left out.
        os_streams: OSBlock streams that they run.
        steps: training step of each network, by role.
        images: "uint8" images, normalised inside, or "float" ones that are normalised already.
        flip: whether the features of the mirrored image are added.
        body_size: height and width of body images.
        face_size: height and width of faces.
    """

    networks: tuple[Stream, ...]
    variables: Mapping[str, Any]
    os_streams: str
    steps: Mapping[str, int]
    images: str
    flip: bool
    body_size: tuple[int, int]
    face_size: tuple[int, int]

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The arguments in order: the body image, the face, and whether there is a face."""
        dtype = "uint8" if self.images == "uint8" else "float32"
        streams = [stream_name(network) for network in self.networks]
        body = [Input("body", dtype, (*self.body_size, 3))] if "body" in streams else []
        face = [Input("face", dtype, (*self.face_size, 3)), Input("has_face", "bool", ())]
        return (*body, *(face if "face" in streams else []))

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return sum(len(PARTS) * network.feature_dim for network in self.networks)


def stream_name(network: Stream) -> str:
    """Returns which stream of an embedding a network gives: "face" or "body"."""
    return "body" if network.role == "body" else "face"


def read_program(
    folder: Path,
    *,
    network: str | None = None,
    images: str = "uint8",
    flip: bool | None = None,
    body_size: tuple[int, int] | None = None,
    face_size: tuple[int, int] | None = None,
    report: str = "last",
) -> tuple[Program, Networks]:
    """Reads what is to be served from a workdir.

    Args:
        folder: a workdir that was trained or converted.
        network: one of `CHOICES`; None for what the workdir's configuration embeds with.
        images: one of `IMAGES`.
        flip: whether the mirrored image is embedded too; None for `eval.flip` of the configuration, else True.
        body_size: height and width in pixels; None for the configuration's, else the paper's 384 x 128.
        face_size: height and width in pixels; None for the configuration's, else the paper's 224 x 224.
        report: which checkpoint, as `eval.report`.

    Returns:
        The program, and the workdir's networks with what is recorded about them.

    Raises:
        MissingInputError: the workdir holds no checkpoints.
        InputError: a choice is unknown, a network is not there, or a size is none.
    """
    if images not in IMAGES:
        raise InputError(f"images are {images!r}; expected one of {', '.join(IMAGES)}.")
    if network is not None and network not in CHOICES:
        raise InputError(f"the network is {network!r}; expected one of {', '.join(CHOICES)}.")
    held = read_networks(folder, report)
    if "osnet" in held.variables:
        raise InputError(f"{folder} holds an OSNet, which gives no embedding by itself: start a training from it.")
    roles = _roles(folder, held, network)
    streams, variables = [], {}
    for role in roles:
        stream, os_streams = describe(role, held.variables[role], "deskpro")
        streams.append(stream)
        variables[role] = _without_classifier(fold(held.variables[role]))
    data = (held.config or {}).get("data", {})
    return (
        Program(
            tuple(streams),
            variables,
            os_streams,
            {role: held.step(role) for role in roles},
            images,
            (held.config or {}).get("eval", {}).get("flip", True) if flip is None else flip,
            _size("body", body_size or data.get("body_size")),
            _size("face", face_size or data.get("face_size")),
        ),
        held,
    )


def _roles(folder: Path, held: Networks, network: str | None) -> tuple[str, ...]:
    roles: tuple[str, ...]
    if network is not None:
        roles = CHOICES[network]
    else:
        model = (held.config or {}).get("model") or (held.origin or {}).get("model") or {}
        face = {"student": ["student"], "teacher": ["teacher"]}.get(model.get("face", ""), [])
        roles = (*face, *(["body"] if model.get("body") else []))
        roles = roles or tuple(role for role in ("student", "body") if role in held.variables) or ("teacher",)
    missing = [role for role in roles if role not in held.variables]
    if missing:
        raise InputError(
            f"{folder} holds {' and '.join(held.variables)}, no {' and no '.join(missing)}: choose another --network,"
            " or the workdir where that one was trained."
        )
    return roles


def _size(name: str, given: Any) -> tuple[int, int]:
    size = tuple(given or _SIZES[name])
    if len(size) != 2 or any(side < _MULTIPLE or side % _MULTIPLE for side in size):
        raise InputError(f"the {name} size is {size}; expected height and width in multiples of {_MULTIPLE} pixels.")
    return size


def _without_classifier(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables with a classifier of one identity: an embedding needs none, and it may be most of them."""
    kernel = variables["params"]["classifier"]["kernel"]
    small = {"kernel": np.zeros((*kernel.shape[:-1], 1), np.float32)}
    return {**variables, "params": {**variables["params"], "classifier": small}}


def embedding_function(program: Program) -> Callable[..., Array]:
    """Returns the function of `program.inputs` [batch, ...] to embeddings [batch, dimension], to be jitted or exported.

    Embeddings are those of `embedding.combine`: face first, each part of unit length, zeros for a missing face.
    """

    def embed(*arguments: Array) -> Array:
        given = {entry.name: value for entry, value in zip(program.inputs, arguments, strict=True)}
        features, mirrored = {}, {}
        for network in program.networks:
            name = stream_name(network)
            images, batch = given[name], given[name].shape[0]
            images = augment.normalise(images) if program.images == "uint8" else images.astype(jnp.float32)
            if program.flip:  # one pass over both halves: a program of half the size
                images = jnp.concatenate([images, images[:, :, ::-1]])
            module = LightMBN(1, network.backbone, program.os_streams, network.attention, network.feature_dim)
            with folded_norms():
                outputs, _ = module.apply(program.variables[network.role], images, train=False)
            features[name] = outputs["embeddings"][:, :batch]
            mirrored[name] = outputs["embeddings"][:, batch:]
        return embeddings.combine(features, mirrored if program.flip else None, has_face=given.get("has_face"))

    return embed
