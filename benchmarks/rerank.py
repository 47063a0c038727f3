"""Re-ranking by k-reciprocal neighbours: seconds and working memory at the sizes of two test sets."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import features, memory
from benchmarks.races import OURS, Entrant, Race, Settings
from benchmarks.timing import call_seconds

SIZES = {"Market-1501": (3368, 15913, 750), "Celeb-reID": (2972, 11006, 420)}  # queries, gallery, identities


def races(settings: Settings) -> list[Race]:
    """Returns a race for each size, of our entrant alone."""
    found = []
    for name, (queries, gallery, identities) in SIZES.items():
        arguments = {
            "queries": settings.count(queries, 24),
            "gallery": settings.count(gallery, 120),
            "identities": settings.count(identities, 12),
            "dimension": features.PARTS * 8 if settings.quick else features.DIMENSION,
        }
        case = f"{name}, {arguments['queries']:,} x {arguments['gallery']:,} of {arguments['dimension']:,}"
        found.append(Race(case, (Entrant(OURS, "benchmarks.rerank:rerank", arguments),), settings.rounds(3)))
    return found


def rerank(queries: int, gallery: int, identities: int, dimension: int) -> Iterator[dict[str, float]]:
    """Re-ranks and takes the distances block by block, as an evaluation does; an entrant."""
    from deskpro_jax.evaluation import reranking as method
    from deskpro_jax.evaluation.similarity import equal_parts

    query = features.embeddings(features.labels(queries, identities, 0).identity, dimension, 0)
    images = features.embeddings(features.labels(gallery, identities, 1).identity, dimension, 1)
    settings = method.Reranking()
    similarity = equal_parts(dimension, {"both": features.PARTS})
    block = settings.block(query, images)

    def run() -> None:
        distances = method.rerank(
            query,
            images,
            similarity=similarity,
            k1=settings.k1,
            k2=settings.k2,
            original_weight=settings.original_weight,
            block=block,
        )
        for _ in distances:
            pass

    yield {"size": query.nbytes + images.nbytes}
    while True:
        before = memory.resident_bytes()
        memory.forget_peak()
        yield {"time": call_seconds(run, 0.0)[0], "working memory": max(0, memory.peak_bytes() - before)}
