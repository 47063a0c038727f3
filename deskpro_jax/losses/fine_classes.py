"""Losses of fine classes (FIRe2): clusters of each identity's images, told apart by cosines with their centres."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Array, Bool, Float, Int

from deskpro_jax.losses.clusters import cluster_identities, find_dbscan
from deskpro_jax.losses.cosine import cosines
from deskpro_jax.losses.reduction import float_type, masked_mean
from deskpro_jax.losses.terms import from_epoch
from deskpro_jax.models.contract import Counts, EpochStart, LossTerm, StepValues, StreamSpec, TrainingImages


class FineClasses(NamedTuple):
    """Fine classes of a batch; those of an identity are numbered one after the other.

    Attributes:
        own: fine class of each row.
        first: first fine class of its identity.
        number: fine classes of its identity.
        total: fine classes of all identities, the same in each row.
    """

    own: Int[Array, " batch"]
    first: Int[Array, " batch"]
    number: Int[Array, " batch"]
    total: Int[Array, " batch"]


FIELDS = tuple(f"fine_{name}" for name in FineClasses._fields)  # in a batch


def attribute_aware(
    cosine: Float[Array, "batch places"],
    classes: FineClasses,
    valid: Bool[Array, " batch"],
    *,
    scale: float = 16.0,
    smoothing: float = 0.1,
) -> Float[Array, ""]:
    """Cross-entropy over all fine classes, whose target spreads a part evenly over those of the identity.

    Args:
        cosine: with the centre of each fine class; places from `classes.total` on are empty and take no part.
        classes: of each row.
        valid: rows that take part.
        scale: of the cosines.
        smoothing: e of the target (1 - e) one-hot + e / K over the K fine classes of the identity.

    Returns:
        The mean over the valid rows. Reference: Wang et al., TIFS 2024.
    """
    place = jnp.arange(cosine.shape[-1])
    first, end = classes.first[:, None], (classes.first + classes.number)[:, None]
    of_identity = (place >= first) & (place < end)
    logits = jnp.where(place < classes.total[:, None], scale * cosine.astype(float_type(cosine)), -jnp.inf)
    target = (1 - smoothing) * (place == classes.own[:, None])
    target = target + smoothing * of_identity / jnp.maximum(classes.number, 1)[:, None]
    each = -jnp.where(target > 0, target * jax.nn.log_softmax(logits), 0.0).sum(-1)
    return masked_mean(jnp.where(valid, each, 0.0), valid)


def attribute_term(loss: ml_collections.ConfigDict, spec: StreamSpec) -> LossTerm:
    """Returns `attribute_aware` of a stream with its centres as parameters; 0 in batches without fine classes.

    Args:
        loss: `config.loss`.
        spec: the stream, whose features are as long as its embeddings.
    """

    def attribute(values: StepValues) -> Array:
        if FIELDS[0] not in values.inputs:
            return jnp.zeros(())
        classes = FineClasses(*(values.inputs[name] for name in FIELDS))
        cosine = cosines(values.outputs[spec.name]["features"][0], values.parameters["centres"].T)
        rows = spec.rows(values.inputs)
        return attribute_aware(cosine, classes, rows, scale=loss.fine_scale, smoothing=loss.fine_smoothing)

    def none_yet(counts: Counts, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"centres": np.zeros((1, spec.dim), np.float32)}

    return LossTerm(_attribute(spec), attribute, from_epoch(loss.triplet_start, loss.fine_weight), none_yet)


def _attribute(spec: StreamSpec) -> str:
    return f"attribute_{spec.name}"


def clustering(loss: ml_collections.ConfigDict, spec: StreamSpec) -> Callable[[int, TrainingImages], EpochStart]:
    """Returns the work between epochs, from `loss.triplet_start` on: fine classes, and centres for `attribute_term`.

    The places for centres are a power of two, so that the step is compiled anew only when more are needed or fewer do.

    Args:
        loss: `config.loss`.
        spec: the stream whose embeddings are clustered.
    """

    def work(epoch: int, images: TrainingImages) -> EpochStart:
        find_dbscan()  # raises where it is missing, before the epochs that do without
        if epoch < loss.triplet_start:
            return EpochStart()
        clusters = cluster_identities(
            images.embed(), images.identity, k1=loss.cluster_k1, k2=loss.cluster_k2, eps=loss.cluster_eps
        )
        total, identities = len(clusters.centres), len(np.unique(images.identity))
        logging.info("epoch %d: %d clusters of the images of %d identities", epoch + 1, total, identities)
        centres = np.zeros((1 << (total - 1).bit_length(), spec.dim), np.float32)
        centres[:total] = clusters.centres
        columns = clusters.label, clusters.first, clusters.number, np.full_like(clusters.label, total)
        parameters = {_attribute(spec): {"centres": centres}}
        return EpochStart(dict(zip(FIELDS, columns, strict=True)), parameters)

    return work
