"""Evaluation: CMC and mAP from given distances, and from features in blocks, with the memory that takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import features, memory
from benchmarks.races import OURS, Entrant, Race, Settings
from benchmarks.timing import call_seconds
from deskpro_jax.evaluation.matching_rules import Labels

CELEB = (2972, 11006, 420)  # Celeb-reID: queries, gallery images, identities
LARGE = (20_000, 100_000, 5_000)
_QUICK = {CELEB: (24, 120, 12), LARGE: (40, 200, 20)}


def races(settings: Settings) -> list[Race]:
    """Returns the cases of the module's first line; the large one takes 4 GiB."""
    dimension = features.PARTS * 8 if settings.quick else features.DIMENSION
    found = []
    for real, rounds in ((CELEB, 7), (LARGE, 1)):
        numbers = [settings.count(one, quick) for one, quick in zip(real, _QUICK[real], strict=True)]
        size = dict(zip(("queries", "gallery", "identities"), numbers, strict=True))
        name = f"{size['queries']:,} x {size['gallery']:,}"
        if real == CELEB:
            entrants = [
                Entrant(OURS, "benchmarks.evaluation:score_distances", {**size, "way": "ours"}),
                Entrant("argsort of every row", "benchmarks.evaluation:score_distances", {**size, "way": "argsort"}),
            ]
            found.append(Race(f"distances {name}", tuple(entrants), settings.rounds(rounds), agree={"mAP": 1e-6}))
        arguments = {**size, "dimension": dimension}
        entrants = [Entrant(OURS, "benchmarks.evaluation:score_features", arguments)]
        found.append(Race(f"features {name} of {dimension:,}", tuple(entrants), settings.rounds(min(rounds, 3))))
    return found


def score_distances(queries: int, gallery: int, identities: int, way: str) -> Iterator[dict[str, float]]:
    """Scores a matrix of distances; an entrant."""
    from deskpro_jax.evaluation.ranking import score_from_distances

    query_labels = features.labels(queries, identities, 0)
    gallery_labels = features.labels(gallery, identities, 1)
    same = query_labels.identity[:, None] == gallery_labels.identity[None]
    distances = np.random.default_rng(2).random((queries, gallery), np.float32)
    distances[same] *= 0.5
    del same

    def run() -> float:
        if way == "argsort":
            return _by_argsort(distances, query_labels, gallery_labels)
        return score_from_distances(distances, query_labels, gallery_labels).map

    yield {"mAP": run()}
    while True:
        yield _measured(run)


def score_features(queries: int, gallery: int, identities: int, dimension: int) -> Iterator[dict[str, float]]:
    """Scores embeddings, whose similarities are computed in blocks; an entrant."""
    from deskpro_jax.evaluation.ranking import score
    from deskpro_jax.evaluation.similarity import equal_parts

    query_labels = features.labels(queries, identities, 0)
    gallery_labels = features.labels(gallery, identities, 1)
    query = features.embeddings(query_labels.identity, dimension, 0)
    images = features.embeddings(gallery_labels.identity, dimension, 1)
    similarity = equal_parts(dimension, {"both": features.PARTS})
    yield {"size": query.nbytes + images.nbytes}
    while True:
        yield _measured(lambda: score(query, images, query_labels, gallery_labels, similarity=similarity))


def _measured(run: object) -> dict[str, float]:
    assert callable(run)
    before = memory.resident_bytes()
    memory.forget_peak()
    seconds = call_seconds(run, 0.0)[0]
    return {"time": seconds, "working memory": max(0, memory.peak_bytes() - before)}


def _by_argsort(distances: np.ndarray, query: Labels, gallery: Labels) -> float:
    """Returns the mAP as it is often computed: every row's gallery ranked, images of the query's own camera left out.

    The same figure as ours, by other means: what it is compared with.
    """
    precisions = []
    for i, row in enumerate(distances):
        order = np.argsort(row, kind="stable")
        same = gallery.identity[order] == query.identity[i]
        hits = same[~(same & (gallery.camera[order] == query.camera[i]))]
        if hits.any():
            places = np.flatnonzero(hits) + 1
            precisions.append(np.mean(np.arange(1, len(places) + 1) / places))
    return float(np.mean(precisions))
