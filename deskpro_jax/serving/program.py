"""The function that is served: from images of a whole batch to embeddings, with the networks of a workdir inside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deskpro_jax.data.load import augment
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.methods import METHODS, other_methods, variants
from deskpro_jax.models import embeddings
from deskpro_jax.models.contract import CLASSIFIER, Network, StreamSpec, embedding_streams
from deskpro_jax.models.streams import with_choices
from deskpro_jax.serving.fold import fold, folded_norms
from deskpro_jax.workdir.networks import LoadedNetworks, load_networks

# What may be served -> the face network, and whether the body network is among them.
CHOICES = {
    "both": ("student", True),
    "body": ("none", True),
    "face": ("student", False),
    "teacher": ("teacher", False),
    "star": ("teacher", True),  # DeSKPro*: restored faces
}
IMAGES = ("uint8", "float")
_MULTIPLE = 16  # the networks halve a map four times


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
        networks: the modules and their streams.
        variables: of each network, without classifiers; BatchNorms folded (`fold.fold`) in the package's own networks.
        folded: whether BatchNorms are folded into convolutions.
        loaded: what they were opened as.
        images: "uint8" images, normalised inside, or "float" ones that are normalised already.
        flip: whether the features of the mirrored image are added.
        body_size: height and width of body images.
        face_size: height and width of faces.
    """

    networks: tuple[Network, ...]
    variables: tuple[Mapping[str, Any], ...]
    folded: bool
    loaded: LoadedNetworks
    images: str
    flip: bool
    body_size: tuple[int, int]
    face_size: tuple[int, int]

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        """The streams of an embedding, in order."""
        return embedding_streams(self.networks)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The arguments in order: the body image, the face, and whether there is a face."""
        dtype = "uint8" if self.images == "uint8" else "float32"
        faces = {stream.reads_face for stream in self.streams}
        body = [Input("body", dtype, (*self.body_size, 3))] if False in faces else []
        face = [Input("face", dtype, (*self.face_size, 3)), Input("has_face", "bool", ())]
        return (*body, *(face if True in faces else []))

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return sum(stream.width for stream in self.streams)


def argument_name(stream: StreamSpec) -> str:
    """Returns which argument of the program a stream reads: "face" or "body"."""
    return "face" if stream.reads_face else "body"


def read_program(
    folder: Path,
    *,
    network: str | None = None,
    images: str = "uint8",
    flip: bool | None = None,
    body_size: tuple[int, int] | None = None,
    face_size: tuple[int, int] | None = None,
    report: str = "last",
) -> Program:
    """Reads what is to be served from a workdir.

    Args:
        folder: a workdir that was trained or converted.
        network: one of `CHOICES`; None for what the workdir's configuration embeds with.
        images: one of `IMAGES`.
        flip: whether the mirrored image is embedded too; None for `eval.flip` of the configuration.
        body_size: height and width in pixels; None for the configuration's.
        face_size: height and width in pixels; None for the configuration's.
        report: which checkpoint, as `eval.report`.

    Returns:
        The program.

    Raises:
        MissingInputError: the workdir holds no checkpoints.
        InputError: a choice is unknown, a network is not there, or a size cannot be used.
    """
    if images not in IMAGES:
        raise InputError(f"images are {images!r}; expected one of {', '.join(IMAGES)}.")
    if network is not None and network not in CHOICES:
        raise InputError(f"the network is {network!r}; expected one of {', '.join(CHOICES)}.")
    face, body = (None, True) if network is None else CHOICES[network]
    try:
        loaded = load_networks(folder, face=face, body=body, report=report)
    except MissingInputError as error:
        if network is None or not any(folder.glob("*/checkpoints")):
            raise
        raise InputError(f"{error} Choose another --network, or the workdir where that one was trained.") from error
    if network is not None and body and not any(not stream.reads_face for stream in loaded.streams):
        raise InputError(f"{folder} holds no body network: choose another --network.")
    # Layers of other names or kinds may have the same names as ours and another order.
    known = (*METHODS, *variants())
    own = all(name in known for name in (loaded.config.model.name, *other_methods(loaded.config)))
    foldable = own and ":" not in loaded.config.model.backbone
    return Program(
        loaded.networks,
        tuple(_for_serving(values, foldable) for values in loaded.variables),
        foldable,
        loaded,
        images,
        bool(loaded.config.eval.flip) if flip is None else flip,
        _size("body", body_size or loaded.sizes["body"]),
        _size("face", face_size or loaded.sizes["face"]),
    )


def _size(name: str, size: Any) -> tuple[int, int]:
    size = tuple(size)
    if len(size) != 2 or any(side < _MULTIPLE or side % _MULTIPLE for side in size):
        raise InputError(f"the {name} size is {size}; expected height and width in multiples of {_MULTIPLE} pixels.")
    return size


def _for_serving(variables: Mapping[str, Any], foldable: bool) -> dict[str, Any]:
    """Returns folded variables with classifiers of one identity: an embedding needs none, and they may be large."""
    folded = fold(variables) if foldable else dict(variables)
    return {**folded, "params": _with_one_class(folded["params"])}


def _with_one_class(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters with zeros for one class in place of every classifier."""
    return {
        name: jax.tree.map(lambda leaf: np.zeros((*leaf.shape[:-1], 1), np.float32), tree)
        if name.startswith(CLASSIFIER)
        else _with_one_class(tree)
        if isinstance(tree, Mapping)
        else tree
        for name, tree in params.items()
    }


def embedding_function(program: Program) -> Callable[..., Array]:
    """Returns the function of `program.inputs` [batch, ...] to embeddings [batch, dimension], to be jitted or exported.

    Embeddings are those of `embeddings.combine`: face first, each part of unit length, zeros for a missing face.
    """

    def embed(*arguments: Array) -> Array:
        values = {entry.name: value for entry, value in zip(program.inputs, arguments, strict=True)}
        features, mirrored = {}, {}
        for network, variables in zip(program.networks, program.variables, strict=True):
            inputs = {stream.image: _images(program, values[argument_name(stream)]) for stream in network.streams}
            with folded_norms() if program.folded else contextlib.nullcontext():
                outputs, _ = _one_identity(network.module).apply(variables, inputs, train=False)
            for stream in network.streams:
                batch = values[argument_name(stream)].shape[0]
                features[stream.name] = outputs[stream.name]["embeddings"][:, :batch]
                mirrored[stream.name] = outputs[stream.name]["embeddings"][:, batch:]
        has_face = values.get("has_face")
        return embeddings.combine(program.streams, features, mirrored if program.flip else None, has_face=has_face)

    return embed


def _images(program: Program, images: Array) -> Array:
    images = augment.normalise(images) if program.images == "uint8" else images.astype(jnp.float32)
    # One pass over both halves: a program of half the size.
    return jnp.concatenate([images, images[:, :, ::-1]]) if program.flip else images


def _one_identity(module: Any) -> Any:
    return with_choices(module, num_classes=1)
