"""The losses on classes of clothes as terms of a recipe, with the classifiers that they have for themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Bool, Float

from deskpro_jax.losses import clothes
from deskpro_jax.losses.cosine import cosines
from deskpro_jax.losses.identification import cross_entropy
from deskpro_jax.losses.terms import from_epoch
from deskpro_jax.models.contract import Counts, LossTerm, Optimizer, StepValues, StreamSpec

Features = Callable[[StepValues], Float[Array, "batch dim"]]


def classification(
    loss: ml_collections.ConfigDict,
    name: str,
    features: Features,
    dim: int,
    spec: StreamSpec,
    optimizer: Optimizer,
    *,
    first: bool = False,
) -> LossTerm:
    """Returns the cross-entropy of a cosine classifier of clothes, which is its own.

    Args:
        loss: `config.loss`.
        name: of the term.
        features: what it classifies.
        dim: length of a feature.
        spec: the stream that the features are of.
        optimizer: of the classifier.
        first: see `LossTerm.first`.
    """

    def compute(values: StepValues) -> Array:
        scores = loss.clothes_scale * _cosines(values, values.parameters, features)
        return cross_entropy(scores, values.inputs["clothes"], _known(values, spec))

    def classifier(counts: Counts, rng: np.random.Generator) -> Mapping[str, Mapping[str, np.ndarray]]:
        kernel = rng.uniform(-1, 1, (dim, counts.clothes)).astype(np.float32)
        return {"classifier": {"kernel": kernel / np.linalg.norm(kernel, axis=0)}}

    return LossTerm(name, compute, 1.0, classifier, optimizer, first, needs_clothes=True)


def adversarial(
    loss: ml_collections.ConfigDict, name: str, features: Features, spec: StreamSpec, classifier: str
) -> LossTerm:
    """Returns CAL's loss of features by the classifier of another term, from `loss.clothes_epoch` on.

    Args:
        loss: `config.loss`.
        name: of the term.
        features: what must not show clothes.
        spec: the stream that the features are of.
        classifier: name of the term that has the classifier.
    """

    def compute(values: StepValues) -> Array:
        cosine = _cosines(values, values.parameters_of[classifier], features)
        numbers = {"scale": loss.clothes_scale, "epsilon": loss.clothes_epsilon}
        own = _own_classes(values, cosine.shape[-1])
        return clothes.adversarial(cosine, values.inputs["clothes"], own, _known(values, spec), **numbers)

    return LossTerm(name, compute, from_epoch(loss.clothes_epoch, 1.0), needs_clothes=True)


def divergence(
    loss: ml_collections.ConfigDict, name: str, spec: StreamSpec, one: tuple[str, Features], other: tuple[str, Features]
) -> LossTerm:
    """Returns AIM's divergence of two classifiers' cosines, from `loss.clothes_epoch` on.

    Args:
        loss: `config.loss`.
        name: of the term.
        spec: the stream that the features are of.
        one: term whose classifier learns, and its features, which do as well.
        other: term whose classifier is the target, and its features; both are constants.
    """

    def compute(values: StepValues) -> Array:
        first, second = (_cosines(values, values.parameters_of[term], features) for term, features in (one, other))
        return clothes.symmetric_divergence(first, jax.lax.stop_gradient(second), _known(values, spec))

    return LossTerm(name, compute, from_epoch(loss.clothes_epoch, loss.clothes_divergence), needs_clothes=True)


def _cosines(values: StepValues, parameters: Mapping[str, Any], features: Features) -> Float[Array, "batch classes"]:
    return cosines(features(values), parameters["classifier"]["kernel"])


def _own_classes(values: StepValues, classes: int) -> Bool[Array, "batch classes"]:
    """Returns a mask of the classes of clothes of each image's identity."""
    first, end = jnp.split(values.inputs["clothes_range"], 2, axis=1)
    number = jnp.arange(classes)
    return (number >= first) & (number < end)


def _known(values: StepValues, spec: StreamSpec) -> Bool[Array, " batch"]:
    """Returns the rows that have the image of the stream and known clothes."""
    return spec.rows(values.inputs) & (values.inputs["clothes"] >= 0)
