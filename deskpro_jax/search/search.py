"""Searches a gallery for the images that are most similar to each query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.search.approximate import GalleryIndex
from deskpro_jax.search.exact import Neighbours, nearest
from deskpro_jax.search.matches import Match, Query
from deskpro_jax.search.queries import Queries
from deskpro_jax.search.special_identities import ALL_PEOPLE, SpecialIdentities
from deskpro_jax.search.thresholds import Thresholds

_QUERIES = 4096  # searched for in one pass over the gallery


def search(
    gallery: EmbeddingSet,
    queries: Queries,
    k: int,
    *,
    index: GalleryIndex | None = None,
    effort: int | None = None,
    thresholds: Thresholds | None = None,
    special: SpecialIdentities = ALL_PEOPLE,
) -> Iterator[Query]:
    """Finds the nearest gallery images of every query.

    Args:
        gallery: where to look.
        queries: what to look for.
        k: how many images a query.
        index: approximate index of the gallery; None searches exactly.
        effort: of the approximate search.
        thresholds: that answer whether two images show the same person.
        special: junk images among these identities are in no result.

    Yields:
        For each query its matches, best first.
    """
    columns = gallery.columns()
    junk = np.array([special.is_junk(identity) for identity in columns["identity"]], bool) if special.junk else None
    for start in range(0, len(queries.names), _QUERIES):
        rows = queries.embeddings[start : start + _QUERIES]
        if index is None:
            neighbours = nearest(rows, gallery.blocks(), k, gallery.similarity, junk)
        else:
            neighbours = index.search(rows, k, effort, junk)
        parts = gallery.similarity.present(rows).sum(axis=1)
        for i in range(len(rows)):
            by = gallery.similarity.compared(int(parts[i])) if parts[i] else "nothing"
            yield Query(queries.names[start + i], by, tuple(_matches(neighbours, i, gallery, columns, thresholds)))


def _matches(
    neighbours: Neighbours,
    query: int,
    gallery: EmbeddingSet,
    columns: Mapping[str, Sequence[Any]],
    limits: Thresholds | None,
) -> Iterator[Match]:
    for rank, row in enumerate(neighbours.rows[query], 1):
        if row < 0:
            return
        similarity = float(neighbours.similarity[query, rank - 1])
        by = gallery.similarity.compared(int(neighbours.shared[query, rank - 1]))
        labels = {name: columns[name][row] for name in ("image_id", "image", "identity", "camera", "clothes")}
        yield Match(rank, similarity, by, limits.same_person(by, similarity) if limits else None, **labels)
