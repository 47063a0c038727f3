"""The contract between a published method and everything that trains, evaluates, embeds, serves and reports it.

A module of `deskpro_jax/methods` (or of a fork) has three functions and a name table:

    build(config, counts) -> flax module      streams(config) -> tuple[StreamSpec, ...]
    recipe(config) -> Recipe                  NAMES: the names of its published weights
    check(config)                             VARIANTS: fields of the configuration by name of a variant
    DEBUG: fields that make a run of it short, beside those of `configs.variants.DEBUG`

The flax module is applied to the fields of a batch: `module.apply(variables, inputs, train=..., rngs=...)` returns
`(outputs, intermediates)`, both by stream; `outputs[stream]` has `logits`, `features` (before the neck) and
`embeddings` (what is compared), each [parts, batch, ...].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import ml_collections
import numpy as np
from jaxtyping import Array

Inputs = Mapping[str, Array]  # the fields of a batch, images normalised
Outputs = Mapping[str, Mapping[str, Array]]  # by stream, then by name
# What the names of modules begin with whose parameters have one entry per identity, on the last axis: no embedding
# depends on them, and a file may have them for other people.
CLASSIFIER = "classifier"
PRETRAINED = "pretrained"  # label of parameters that published weights start, see `Recipe.label`


@dataclass(frozen=True)
class StreamSpec:
    """One stream of a method: a network that reads one image and gives part features.

    Attributes:
        name: of the stream, as "body" or "face".
        image: field of the batch that it reads: "body", "face" or "restored_face".
        parts: names of its part features, in order.
        triplet: positions of the parts that take the metric loss.
        dim: size of each part's embedding.
        weights: of the parts in a comparison of two embeddings; () counts each once.
    """

    name: str
    image: str
    parts: tuple[str, ...]
    triplet: tuple[int, ...]
    dim: int
    weights: tuple[float, ...] = ()

    @property
    def reads_face(self) -> bool:
        """Whether its image may be missing: a photo need not show a face."""
        return self.image != "body"

    @property
    def width(self) -> int:
        """Length of its share of an embedding."""
        return len(self.parts) * self.dim

    def rows(self, inputs: Inputs) -> Array:
        """Returns which rows of a batch have its image, [batch] bool; padding has none."""
        return inputs["valid"] & inputs["has_face"] if self.reads_face else inputs["valid"]


class Counts(NamedTuple):
    """How many classes a module's classifiers tell apart.

    Attributes:
        identities: of the training split; a batch has their classes as `identity`.
        clothes: outfits of the training split, each of one identity; 0 where they are not known. A batch has their
            classes as `clothes`, -1 where unknown, and as `clothes_range` [batch, 2] the first class of an image's
            identity and the one after its last.
    """

    identities: int
    clothes: int = 0


class Network(NamedTuple):
    """A flax module and the streams that it gives."""

    module: nn.Module
    streams: tuple[StreamSpec, ...]

    @property
    def images(self) -> tuple[str, ...]:
        """The images that it reads, as fields of a batch."""
        return tuple(dict.fromkeys(stream.image for stream in self.streams))

    def without_faces(self) -> Network:
        """Returns the same module with the streams that read no face; it leaves out those whose image is not there."""
        return self._replace(streams=tuple(stream for stream in self.streams if not stream.reads_face))


def embedding_streams(networks: Iterable[Network]) -> tuple[StreamSpec, ...]:
    """Returns the streams of an embedding in their order: those of faces first, otherwise as the networks have them."""
    streams = [stream for network in networks for stream in network.streams]
    return tuple(sorted(streams, key=lambda stream: not stream.reads_face))


def image_sizes(config: ml_collections.ConfigDict) -> dict[str, tuple[int, int]]:
    """Returns height and width of the images of a batch by field."""
    body, face = tuple(config.data.body_size), tuple(config.data.face_size)
    return {"body": body, "face": face, "restored_face": face}


@dataclass(frozen=True)
class PublishedNames:
    """How files of published weights name the tensors of a method's network.

    The path of a parameter within its network, joined by dots and with PyTorch's names of leaves (`weight`, `bias`,
    `running_mean`, `running_var`), is renamed by each pair in turn; the result is the name in the file. Axes follow
    from the shape: kernels of four axes are convolutions, of three depthwise ones, of two linear layers where the
    name matches `linear`, else 1x1 convolutions.

    Attributes:
        family: of the files, as `deskpro convert --family` calls it.
        signature: names of tensors that together only this family has, after wrappers such as `module.`.
        stacks: regular expression for a part of the paths of parameters that hold several tensors along their first
            axis, and what takes its place in the path of each of them.
        rename: regular expression and replacement, applied in order (`re.sub`); "" as the whole result means that the
            file has nothing for this parameter, which keeps its initial value.
        ignored: regular expression for whole names of tensors in a file that the network does not use.
        linear: regular expression for whole names of linear layers' weights.
        axes: regular expression for whole names of other tensors, and the order in which flax has their axes.
        fields: from the shapes of a file's tensors by name to fields of the configuration ("model.feature_dim"): what
            the network is.
        start: whether a file only starts a training, as ImageNet's weights do; several parameters may then begin with
            one tensor.
        variant: of the configuration that these networks belong to; "" for the one called like the method.
    """

    family: str
    signature: tuple[str, ...]
    stacks: tuple[tuple[str, tuple[str, ...]], ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    ignored: str = ""
    linear: str = r"(.*\.)?(fc|classifier)[^.]*(\.\d+)?\.weight"
    axes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    fields: Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, Any]] = lambda shapes: {}
    start: bool = False
    variant: str = ""

    def ignores(self, name: str) -> bool:
        """Returns whether the network has no use for a tensor of a file."""
        return bool(self.ignored) and re.fullmatch(self.ignored, name) is not None


class StepValues(NamedTuple):
    """What a loss term is computed from.

    Attributes:
        outputs: of the module that is trained, by stream.
        intermediates: its maps, by stream.
        inputs: the batch, images normalised.
        teacher: outputs of the frozen teacher, by stream; empty without one.
        epoch: epochs done, counted from 0; an integer.
        parameters: of the term that is computed, see `LossTerm.parameters`.
        parameters_of: those of each term by its name; of one that is `first` after its step, and constants.
    """

    outputs: Outputs
    intermediates: Outputs
    inputs: Inputs
    teacher: Outputs
    epoch: Array | int
    parameters: Mapping[str, Any] = MappingProxyType({})
    parameters_of: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Optimizer:
    """How some of the parameters are updated; `config.train` has what is None or "" here.

    Attributes:
        name: one of `train.optimisers.OPTIMIZERS`.
        rate: factor of the schedule's learning rate.
        constant_rate: learning rate in place of the schedule's.
        weight_decay: L2 added to the gradient.
        momentum: of "sgd".
        gradient_scale: factor of the gradient, before everything else.
        start_epoch: epoch (from 0) of the first update: until then the parameters and their moments stay.
    """

    name: str = ""
    rate: float = 1.0
    constant_rate: float | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    gradient_scale: float = 1.0
    start_epoch: int = 0


@dataclass(frozen=True)
class LossTerm:
    """A term of the loss: a scalar function of a step's values, and its weight in the total.

    Attributes:
        name: in the metrics.
        compute: the function.
        weight: a number, or a function of the epoch.
        parameters: initial values by name (arrays, or trees of them) of parameters that the term has for itself, as a
            centre of each class, from the numbers of classes and a generator; `compute` gets them as
            `values.parameters`.
        optimizer: of these parameters.
        first: whether the term trains nothing but these parameters, and they take their step before the other terms
            are computed, which see them moved (`StepValues.parameters_of`). It is no part of the total.
        needs_clothes: whether it learns from the clothes of each image: the training split must have outfits.
    """

    name: str
    compute: Callable[[StepValues], Array]
    weight: float | Callable[[Any], Any] = 1.0
    parameters: Callable[[Counts, np.random.Generator], Mapping[str, Any]] | None = None
    optimizer: Optimizer = Optimizer()
    first: bool = False
    needs_clothes: bool = False


class TrainingImages(NamedTuple):
    """The images that a phase trains on, as work before an epoch sees them.

    Attributes:
        identity: class of each image [images].
        embed: embeddings of all images [images, dimension], each part of unit length, by the network as it is now.
    """

    identity: np.ndarray
    embed: Callable[[], np.ndarray]


class EpochStart(NamedTuple):
    """What work before an epoch gives.

    Attributes:
        fields: further fields of the batch, one value for each training image. The step is compiled anew where they
            are others than before.
        parameters: new values by name of parameters that terms have for themselves, by term. They may have another
            shape than before; wherever one is given the optimiser starts anew, its moments at zero.
    """

    fields: Mapping[str, np.ndarray] = MappingProxyType({})
    parameters: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({})


@dataclass(frozen=True)
class Recipe:
    """How a module is trained.

    Attributes:
        losses: the terms of the loss, added up in this order.
        optimizer: one of `train.optimisers.OPTIMIZERS`, "" for `train.optimizer`; by label where a method has several.
        label: label of a parameter by its path: a key of `optimizer`, or `PRETRAINED` for layers that published weights
            start, whose learning rate is `train.pretrained_rate` times that of the others.
        schedule: one of `train.schedules.SCHEDULES`, "" for `train.schedule`.
        fields: what the batch needs beside the images of the streams: "cloth_mask", "garments", "restored_face".
        requires: images that a training example must have; those without are left out of the training split.
        teacher: name of the earlier phase whose frozen network the losses compare with; "" without one.
        between_epochs: work before each epoch (clustering), from the number of epochs done; None without any.
        augment: last change of a batch on the device, from a key of the step and the fields, images normalised, to the
            fields that the module and the losses get, which may have more rows; None without any.
    """

    losses: tuple[LossTerm, ...]
    optimizer: str | Mapping[str, str | Optimizer] = ""
    label: Callable[[tuple[str, ...]], str] | None = None
    schedule: str = ""
    fields: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    teacher: str = ""
    between_epochs: Callable[[int, TrainingImages], EpochStart] | None = None
    augment: Callable[[Array, Inputs], Inputs] | None = None


@dataclass(frozen=True)
class PhaseSpec:
    """One training of one module, with a folder of its own in the workdir. Most methods have a single one.

    Attributes:
        name: of the phase and its folder.
        build: the module, from the configuration and the number of classes.
        streams: of the module.
        recipe: how it is trained.
        epochs: how long.
        schedule_epochs: epochs until the schedule's end; 0 for all of `epochs`.
        embeds: whether its streams are part of the embedding.
        init: name of a stream -> field of `config.init` that names its pretrained initialisation.
        methods: name of a stream -> method whose network it is; those of `config.model.name` where absent.
    """

    name: str
    build: Callable[[ml_collections.ConfigDict, Counts], nn.Module]
    streams: tuple[StreamSpec, ...]
    recipe: Recipe
    epochs: int
    schedule_epochs: int = 0
    embeds: bool = True
    init: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)

    def network(self, config: ml_collections.ConfigDict, identities: int, clothes: int = 0) -> Network:
        """Returns the module for so many classes, with its streams."""
        return Network(self.build(config, Counts(identities, clothes)), self.streams)
