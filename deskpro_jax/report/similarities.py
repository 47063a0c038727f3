"""Histograms of similarities: of the same and of different people, in the same and in other clothes."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from deskpro_jax.data.schema import JUNK
from deskpro_jax.evaluation import evaluate
from deskpro_jax.evaluation.matching_rules import UNKNOWN, Labels, same_identity
from deskpro_jax.evaluation.similarity import Similarity
from deskpro_jax.report.opened import Opened
from deskpro_jax.report.view import BLOCK, similarity_of

_FINE = 4000  # bins from -1 to 1 that are counted; the drawn ones are made of them
_DRAWN = 40  # bins of a drawn histogram
DIFFERENT, SAME = "different people", "same person"
SAME_CLOTHES, OTHER_CLOTHES = "same person, same clothes", "same person, other clothes"
_KINDS = (DIFFERENT, SAME, SAME_CLOTHES, OTHER_CLOTHES)
FAR = 0.01  # false accept rate


class Kind(NamedTuple):
    """Pairs of one kind: how many, their mean similarity, their histogram [bins] as fractions."""

    name: str
    pairs: int
    mean: float
    fractions: np.ndarray


class Similarities(NamedTuple):
    """The similarities that a stream gives.

    Attributes:
        stream: "face", "body" or "both".
        edges: [bins + 1] of the drawn histograms.
        kinds: those with pairs, by name.
        tar: true accept rate, the fraction of pairs of the same person above the similarity that a fraction `FAR` of
            the pairs of different people reach; None without pairs of both.
    """

    stream: str
    edges: np.ndarray
    kinds: dict[str, Kind]
    tar: float | None


def find_similarities(opened: Opened, embeddings: tuple[np.ndarray, np.ndarray]) -> list[Similarities]:
    """Counts the similarities of all pairs of a query and a gallery image, a block of queries at a time.

    Pairs of one person and one (known) camera are left out: shots of one moment. So are, for the face stream, images
    without a face, queries that show an unknown person, and junk images.

    Args:
        opened: networks and images.
        embeddings: of query and gallery.

    Returns:
        The similarities of each stream, and of both together.
    """
    whole = similarity_of(opened)
    if whole.distance == "euclidean":  # a histogram needs bounds: cosines of the same features
        embeddings = whole.unit_parts(embeddings[0]), whole.unit_parts(embeddings[1])
        whole = dataclasses.replace(whole, distance="cosine")
    views = whole.views()
    labels = evaluate.labels_of(opened.query), evaluate.labels_of(opened.gallery)
    results = []
    for stream, (columns, similarity) in views.items():
        query, gallery = embeddings[0][:, columns], embeddings[1][:, columns]
        rows = np.flatnonzero(query.any(axis=1) & (labels[0].identity >= 0))
        results.append(_drawn(stream, _count(query, gallery, (labels[0], labels[1]), rows, similarity)))
    return results


def _count(
    query: np.ndarray, gallery: np.ndarray, labels: tuple[Labels, Labels], rows: np.ndarray, similarity: Similarity
) -> np.ndarray:
    """Returns counts [kinds, fine bins]."""
    counts = np.zeros((len(_KINDS), _FINE), np.int64)
    present: np.ndarray = np.asarray(gallery.any(axis=1)) & (labels[1].identity != JUNK)
    for start in range(0, len(rows), BLOCK):
        chosen = rows[start : start + BLOCK]
        values = similarity.between(query[chosen], gallery)
        bins = np.clip((values + 1) * (_FINE / 2), 0, _FINE - 1).astype(np.int32)
        mine = labels[0].take(chosen)
        pairs = same_identity(mine, labels[1])
        everything = np.bincount(bins[:, present].ravel(), minlength=_FINE)
        there = present[pairs.gallery]
        at, column = pairs.query[there], pairs.gallery[there]
        same = bins[at, column]
        counts[0] += everything - np.bincount(same, minlength=_FINE)
        camera = mine.camera[at]
        apart: np.ndarray = np.logical_or(camera == UNKNOWN, camera != labels[1].camera[column])
        clothes, other = mine.clothes[at], labels[1].clothes[column]
        known = apart & (clothes != UNKNOWN) & (other != UNKNOWN)
        for kind, pairs_of_kind in ((1, apart), (2, known & (clothes == other)), (3, known & (clothes != other))):
            counts[kind] += np.bincount(same[pairs_of_kind], minlength=_FINE)
    return counts


def _drawn(stream: str, counts: np.ndarray) -> Similarities:
    used = np.flatnonzero(counts.any(axis=0))
    low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, _FINE)
    width = max(1, -(-(high - low) // _DRAWN))
    bins = -(-(high - low) // width)
    padded = np.zeros((len(_KINDS), bins * width), np.int64)
    padded[:, : high - low] = counts[:, low:high]
    edges = (low + width * np.arange(bins + 1)) * (2 / _FINE) - 1
    centres = (np.arange(_FINE) + 0.5) * (2 / _FINE) - 1
    kinds = {}
    for name, fine, wide in zip(_KINDS, counts, padded.reshape(len(_KINDS), bins, width).sum(2), strict=True):
        if total := int(fine.sum()):
            kinds[name] = Kind(name, total, float(fine @ centres / total), wide / total)
    return Similarities(stream, edges, kinds, _tar(counts[0], counts[1]))


def _tar(different: np.ndarray, same: np.ndarray) -> float | None:
    if not different.sum() or not same.sum():
        return None
    above = np.cumsum(different[::-1])[::-1] / different.sum()  # fraction of pairs in this bin or a higher one
    passing = np.flatnonzero(above <= FAR)
    return float(same[passing[0] :].sum() / same.sum()) if len(passing) else 0.0
