"""Joins the features of an image and of its mirror image into the embedding that retrieval compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import StreamSpec


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
    streams: Sequence[StreamSpec],
    features: Mapping[str, Float[Array, "parts batch dimension"]],
    mirrored: Mapping[str, Float[Array, "parts batch dimension"]] | None = None,
    *,
    has_face: Bool[Array, " batch"] | None = None,
    unit: bool = True,
) -> Float[Array, "batch embedding"]:
    """Joins the streams' features after the neck to embeddings; works under jit.

    The features of the image and of its mirror image are added, then each part is scaled to unit length by itself
    (Wu et al., Identity-Sensitive Knowledge Propagation for Cloth-Changing Person Re-identification, released code).

    Args:
        streams: in the order of the embedding, see `contract.embedding_streams`.
        features: name of a stream -> [parts, batch, dimension] of the image.
        mirrored: the same of the mirrored image; None leaves it out.
        has_face: [batch], False where an image shows no face; needed when a stream reads faces, whatever is in its
            features at those images.
        unit: whether each part is scaled to unit length; otherwise features stay as they are, the mean of those of
            the image and of its mirror image.

    Returns:
        [batch, sum of the streams' widths] float32; zeros in the streams that read faces where `has_face` is False.

    Raises:
        InputError: there is no stream, one has no features, or `has_face` is missing.
    """
    names = [stream.name for stream in streams]
    for given in (features, *(() if mirrored is None else (mirrored,))):
        if not names or set(given) != set(names):
            raise InputError(f"features of streams {sorted(given)}; expected those of {', '.join(names) or 'any'}.")
    if has_face is None and any(stream.reads_face for stream in streams):
        raise InputError("a face stream without has_face; expected one boolean per image, False without a face.")
    blocks = []
    for stream in streams:
        total = features[stream.name].astype(jnp.float32)
        if mirrored is not None:
            total = total + mirrored[stream.name].astype(jnp.float32)
        parts = jnp.moveaxis(total, 0, 1)  # [batch, parts, dimension]
        parts = normalise(parts) if unit else parts / (1 if mirrored is None else 2)
        if stream.reads_face and has_face is not None:
            parts = jnp.where(jnp.asarray(has_face, bool)[:, None, None], parts, 0)
        blocks.append(jax.lax.collapse(parts, 1))
    return jnp.concatenate(blocks, axis=1)
