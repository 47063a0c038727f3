"""Tracklets in place of images: one of its images stands for a tracklet, and the mean of its embeddings."""

from __future__ import annotations

import numpy as np

from deskpro_jax.data.schema import JUNK
from deskpro_jax.evaluation.matching_rules import UNKNOWN, Labels
from deskpro_jax.evaluation.similarity import Similarity

_SAME = ("identity", "camera", "clothes", "scale")  # labels that the images of a tracklet share


def unusable_tracklets(split: str, labels: Labels) -> str | None:
    """Returns why the images of a split cannot be compared by tracklet, or None where they can.

    Args:
        split: its name, for the message.
        labels: of its images, arrays [images].
    """
    images = np.flatnonzero(labels.identity != JUNK)
    tracklets = np.full(len(images), UNKNOWN) if labels.tracklet is None else labels.tracklet[images]
    if unknown := int(np.count_nonzero(tracklets < 0)):
        return f"{unknown} of {len(images)} {split} images have tracklet {UNKNOWN} (unknown)"
    numbers, inverse = np.unique(tracklets, return_inverse=True)
    for name in _SAME:
        values = getattr(labels, name)
        if values is None:
            continue
        first = np.empty(len(numbers), np.int64)
        first[inverse[::-1]] = values[images[::-1]]
        differs = np.flatnonzero(values[images] != first[inverse])
        if len(differs):
            row = differs[0]
            return (
                f"{split} tracklet {tracklets[row]} has images of {name} {first[inverse[row]]} and"
                f" {values[images[row]]}; expected one {name} per tracklet"
            )
    return None


def first_images(labels: Labels) -> np.ndarray:
    """Returns the position of the first image of every tracklet, ascending; junk images are in none."""
    images = np.flatnonzero(labels.identity != JUNK)
    assert labels.tracklet is not None
    _, first = np.unique(labels.tracklet[images], return_index=True)
    return np.sort(images[first])


def mean_embeddings(embeddings: np.ndarray, labels: Labels, chosen: np.ndarray, similarity: Similarity) -> np.ndarray:
    """Returns the embeddings of tracklets: of each part the mean over the images that have it.

    Args:
        embeddings: of the images, [images, dimension].
        labels: of the images, arrays [images].
        chosen: an image of each tracklet, [tracklets] positions.
        similarity: of the embeddings. Where it compares cosines, the means are scaled to unit length.

    Returns:
        [tracklets, dimension] of the same type; zeros for parts that no image of a tracklet has, as a face.
    """
    assert labels.tracklet is not None
    numbers = np.sort(labels.tracklet[chosen])
    rows = np.argsort(labels.tracklet[chosen], kind="stable")
    place = np.minimum(np.searchsorted(numbers, labels.tracklet), len(numbers) - 1)
    taken = (numbers[place] == labels.tracklet) & (labels.identity != JUNK)
    return group_means(embeddings, np.where(taken, rows[place], -1), len(chosen), similarity)


def group_means(embeddings: np.ndarray, group: np.ndarray, groups: int, similarity: Similarity) -> np.ndarray:
    """Returns the means of groups of embeddings, of each part over the images that have it.

    Args:
        embeddings: of images, [images, dimension].
        group: [images] number of the group of each, -1 for none.
        groups: number of groups.
        similarity: of the embeddings. Where it compares cosines, the means are scaled to unit length.

    Returns:
        [groups, dimension] of the same type; zeros for parts that no image of a group has.
    """
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(groups + 1))
    dims = [stream.dim for stream in similarity.streams for _ in range(stream.count)]
    result = np.empty((groups, embeddings.shape[1]), embeddings.dtype)
    for row in range(groups):
        images = embeddings[order[bounds[row] : bounds[row + 1]]]
        count = np.maximum(similarity.present(images).sum(axis=0), 1)
        result[row] = images.sum(axis=0, dtype=np.float64) / np.repeat(count, dims)
    return similarity.unit_parts(result) if similarity.distance == "cosine" else result
