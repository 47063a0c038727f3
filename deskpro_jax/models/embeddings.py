"""Joins the features of an image and of its mirror image into the embedding that retrieval compares."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deskpro_jax.errors import InputError

STREAMS = ("face", "body")  # the order in an embedding


def normalise(vectors: Float[Array, "... dimension"]) -> Float[Array, "... dimension"]:
    """Scales vectors to unit length; a zero vector stays zero.

    Args:
      vectors: [..., dimension], any float type.

    Returns:
      [..., dimension] float32.
    """
    vectors = vectors.astype(jnp.float32)
    # Dividing by the largest entry first keeps the squares of very large and very small features in range.
    largest = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True)
    vectors = vectors / jnp.where(largest > 0, largest, 1)
    length = jnp.sqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True))
    return vectors / jnp.where(length > 0, length, 1)


def combine(
    features: Mapping[str, Float[Array, "parts batch dimension"]],
    mirrored: Mapping[str, Float[Array, "parts batch dimension"]] | None = None,
    *,
    has_face: Bool[Array, " batch"] | None = None,
) -> Float[Array, "batch embedding"]:
    """Makes embeddings from the streams' features after the neck; works under jit.

    The features of the image and of its mirror image are added, then each part is scaled to unit length by itself
    (Wu et al., Identity-Sensitive Knowledge Propagation for Cloth-Changing Person Re-identification, released code).

    Args:
      features: "face" and/or "body" -> [parts, batch, dimension] of the image.
      mirrored: the same of the mirrored image; None leaves it out.
      has_face: [batch], False where an image shows no face; needed when there is a face stream, whatever is in its
        features at those images.

    Returns:
      [batch, streams * parts * dimension] float32: face stream first, parts in the model's order, each of unit length;
      zeros in the face stream where `has_face` is False.

    Raises:
      InputError: a stream is unknown or missing in `mirrored`, none is given, or `has_face` is missing.
    """
    if not features or not set(features) <= set(STREAMS):
        raise InputError(f"features of streams {sorted(features)}; expected at least one of {', '.join(STREAMS)}.")
    if mirrored is not None and set(mirrored) != set(features):
        raise InputError(f"mirrored streams {sorted(mirrored)}; expected those of the images: {sorted(features)}.")
    if "face" in features and has_face is None:
        raise InputError("a face stream without has_face; expected one boolean an image, False where no face is seen.")
    streams = []
    for name in STREAMS:
        if name not in features:
            continue
        total = features[name].astype(jnp.float32)
        if mirrored is not None:
            total = total + mirrored[name].astype(jnp.float32)
        parts = normalise(jnp.moveaxis(total, 0, 1))  # [batch, parts, dimension]
        if name == "face" and has_face is not None:
            parts = jnp.where(jnp.asarray(has_face, bool)[:, None, None], parts, 0)
        streams.append(jax.lax.collapse(parts, 1))
    return jnp.concatenate(streams, axis=1)
