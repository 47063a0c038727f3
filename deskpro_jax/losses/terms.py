"""The losses of one stream as terms of a recipe: cross-entropy, metric loss, centre loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array

from deskpro_jax.errors import InputError
from deskpro_jax.losses.identification import cross_entropy
from deskpro_jax.losses.metric import batch_hard_triplet, centre_loss, multi_similarity
from deskpro_jax.models.contract import Counts, LossTerm, Optimizer, StepValues, StreamSpec

METRICS = ("triplet", "multi_similarity")  # values of loss.metric
DISTANCES = ("euclidean", "cosine")  # values of loss.triplet_distance
OUTPUTS = ("sum", "mean")  # values of loss.outputs


def identity_terms(
    loss: ml_collections.ConfigDict, spec: StreamSpec, ce_weight: float = 1.0, *, float32_targets: bool = False
) -> list[LossTerm]:
    """Returns the metric loss, the cross-entropy and, where it has a weight, the centre loss of a stream.

    Each is summed over the outputs of the stream, or averaged (`loss.outputs`); metric and centre loss take the
    features at the positions `spec.triplet`.

    Args:
        loss: `config.loss`.
        spec: the stream.
        ce_weight: further factor of the cross-entropy's weight.
        float32_targets: see `cross_entropy`.
    """

    def metric(values: StepValues) -> Array:
        features, labels, rows = _metric_inputs(spec, values)
        if loss.metric == "multi_similarity":
            return _joined(loss, multi_similarity(features, labels, rows, margin=loss.margin))
        form = {"margin": loss.margin, "soft": loss.soft_margin, "cosine": loss.triplet_distance == "cosine"}
        return _joined(loss, batch_hard_triplet(features, labels, rows, **form))

    def identification(values: StepValues) -> Array:
        labels, rows = values.inputs["identity"], spec.rows(values.inputs)
        logits = values.outputs[spec.name]["logits"]
        smoothing = loss.label_smoothing
        each = cross_entropy(logits, labels, rows, smoothing=smoothing, float32_targets=float32_targets)
        return _joined(loss, each)

    terms = [
        LossTerm(f"{loss.metric}_{spec.name}", metric, from_epoch(loss.triplet_start, loss.triplet_weight)),
        LossTerm(f"ce_{spec.name}", identification, loss.ce_weight * ce_weight),
    ]
    return [*terms, centre_term(loss, spec)] if loss.centre_weight else terms


def from_epoch(start: int, weight: float) -> float | Callable[[Any], Any]:
    """Returns a weight that is 0 before epoch `start`, counted from 0, as `LossTerm.weight`."""
    return (lambda epoch: weight * (epoch >= start)) if start and weight else weight


def weighted_terms(loss: ml_collections.ConfigDict, spec: StreamSpec) -> list[LossTerm]:
    """Returns `identity_terms` without those of weight 0."""
    return [term for term in identity_terms(loss, spec) if term.weight]


def centre_term(loss: ml_collections.ConfigDict, spec: StreamSpec) -> LossTerm:
    """Returns the centre loss of a stream, with a centre of each class for each output that takes the metric loss.

    The weight does not act on the centres: their gradient is divided by it before the step (Luo et al., code).

    Its `compute` raises InputError where features and embeddings differ in length.

    Args:
        loss: `config.loss`, its `centre_weight` above 0.
        spec: the stream; its features are as long as its embeddings.
    """

    def centre(values: StepValues) -> Array:
        features, labels, rows = _metric_inputs(spec, values)
        if features.shape[-1] != spec.dim:
            raise InputError(
                f"loss.centre_weight is {loss.centre_weight}, and the features of the {spec.name} stream have"
                f" {features.shape[-1]} numbers, its embeddings {spec.dim}: no centre loss for this method, expected 0."
            )
        return _joined(loss, centre_loss(features, values.parameters["centres"], labels, rows))

    def centres(counts: Counts, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        shape = (len(spec.triplet), counts.identities, spec.dim)
        return {"centres": rng.standard_normal(shape).astype(np.float32)}

    return LossTerm(
        f"centre_{spec.name}",
        centre,
        loss.centre_weight,
        centres,
        Optimizer(
            "sgd",
            constant_rate=loss.centre_rate,
            weight_decay=0.0,
            momentum=0.0,
            gradient_scale=1.0 / loss.centre_weight,
        ),
    )


def _metric_inputs(spec: StreamSpec, values: StepValues) -> tuple[Array, Array, Array]:
    """Returns the features that take the metric loss, the identities and the rows that count."""
    features = values.outputs[spec.name]["features"][jnp.asarray(spec.triplet)]
    return features, values.inputs["identity"], spec.rows(values.inputs)


def _joined(loss: ml_collections.ConfigDict, per_output: Array) -> Array:
    return per_output.mean() if loss.outputs == "mean" else per_output.sum()
