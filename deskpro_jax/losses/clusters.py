"""Clusters of each identity's images (FIRe2): the fine classes that a loss tells apart, found between epochs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deskpro_jax.errors import missing_package


class Clusters(NamedTuple):
    """Clusters of images, numbered one after the other over the identities.

    Attributes:
        label: cluster of each image.
        first: first cluster of its identity.
        number: clusters of its identity.
        centres: mean of the images of each cluster.
    """

    label: Int[np.ndarray, " images"]
    first: Int[np.ndarray, " images"]
    number: Int[np.ndarray, " images"]
    centres: Float[np.ndarray, "clusters dim"]


def find_dbscan() -> Any:
    """Returns scikit-learn's DBSCAN.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import DBSCAN
    except ImportError as error:
        raise missing_package("clustering between epochs", "cluster", error) from error
    return DBSCAN


def cluster_identities(
    features: Float[np.ndarray, "images dim"],
    identity: Int[np.ndarray, " images"],
    *,
    k1: int = 20,
    k2: int = 6,
    eps: float = 0.4,
) -> Clusters:
    """Clusters the images of each identity by DBSCAN of their Jaccard distances.

    Args:
        features: scaled to unit length here.
        identity: of each image.
        k1: neighbours, the image itself among them, that must be mutual.
        k2: neighbours over which memberships are averaged.
        eps: largest distance of images that are in one cluster for sure. A cluster may be a single image.

    Returns:
        The clusters, in the order of the identities and of the first image of each. Reference: Wang et al., TIFS 2024.

    Raises:
        InputError: scikit-learn is not installed.
    """
    dbscan = find_dbscan()
    features = np.asarray(features, np.float64)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    label, first, number = (np.empty(len(features), np.int32) for _ in range(3))
    total = 0
    for one in np.unique(identity):
        images = np.flatnonzero(identity == one)
        distances = jaccard_distances(features[images], k1, k2)
        np.fill_diagonal(distances, 0.0)  # an image is in the cluster of its own, however few there are
        own = dbscan(eps=eps, min_samples=1, metric="precomputed").fit_predict(distances)
        label[images], first[images], number[images] = total + own, total, own.max() + 1
        total += int(own.max()) + 1
    centres = np.zeros((total, features.shape[1]))
    np.add.at(centres, label, features)
    return Clusters(label, first, number, centres / np.bincount(label, minlength=total)[:, None])


def jaccard_distances(
    features: Float[np.ndarray, "images dim"], k1: int, k2: int
) -> Float[np.ndarray, "images images"]:
    """Returns Jaccard distances of k-reciprocal neighbours, as FIRe2's code computes them.

    Neighbours are counted from the image itself, where re-ranking (Zhong et al., CVPR 2017) has k1 others. With fewer
    images than `k1` those that are missing have the number -1, which is the last image's place: the last image then
    counts once more in the softmax of a row, whose sum stays below 1, and in the mean over `k2`.

    Args:
        features: of unit length, float64.
        k1: neighbours that must be mutual.
        k2: neighbours over which memberships are averaged.
    """
    images = len(features)
    squared = 2.0 - 2.0 * features @ features.T
    ordering = squared.copy()
    np.fill_diagonal(ordering, -1.0)  # the image itself comes first, before others that are equal to it
    nearest = np.argsort(ordering, axis=1, kind="stable")[:, :k1]
    rank = np.pad(nearest, ((0, 0), (0, max(k1 - images, 0))), constant_values=-1)
    mutual = [_mutual(rank, image) for image in range(images)]
    half = [_mutual(rank[:, : round(k1 / 2) + 1], image) for image in range(images)]
    membership = np.zeros((images, images))
    for image, own in enumerate(mutual):
        added = [half[other] for other in own if len(np.intersect1d(half[other], own)) > 2 / 3 * len(half[other])]
        expanded = np.unique(np.concatenate([own, *added]))
        weights = np.exp(-squared[image, expanded])
        membership[image, expanded] = weights / weights.sum()
    if k2 > 1:
        membership = membership[rank[:, :k2]].mean(1)
    shared = np.stack([np.minimum(row, membership).sum(1) for row in membership])
    return np.maximum(1.0 - shared / (2.0 - shared), 0.0)


def _mutual(rank: np.ndarray, image: int) -> np.ndarray:
    """Returns the neighbours of an image that have it among theirs."""
    neighbours = rank[image]
    return neighbours[(rank[neighbours] == image).any(1)]
