"""Ranks gallery images for query images and scores the rankings under a matching rule: CMC and mAP."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.matching_rules import (
    RULES,
    Labels,
    Rule,
    checked_labels,
    explain_no_match,
    find_junk,
    find_rule,
    same_identity,
    unusable_labels,
)
from deskpro_jax.evaluation.similarity import Similarity, similarity

__all__ = ["RULES", "Labels", "Rule", "Scores", "score", "score_from_distances", "similarity"]

RANKS = (1, 5, 10, 20)
AVERAGE_PRECISIONS = ("step", "trapezoid")  # `eval.average_precision`


@dataclasses.dataclass(frozen=True)
class Scores:
    """The figures of one ranking under one matching rule."""

    rule: str
    map: float  # mean of the average precisions of the counted queries
    cmc: np.ndarray  # float64 [max_rank], fraction of counted queries with a correct image within rank k + 1
    ranks: dict[str, float]  # "R-1", "R-5", "R-10", "R-20"
    queries: int
    counted: int
    dropped: dict[str, int]  # reason -> queries not counted because no correct image was left
    average_precision: np.ndarray  # float64 [queries], nan where not counted
    first_match: np.ndarray  # int64 [queries], rank (from 1) of the first correct image, 0 where not counted
    integration: str = AVERAGE_PRECISIONS[0]  # `eval.average_precision`: how the average precision is integrated

    def summary(self) -> dict[str, object]:
        """Returns the figures without the per-query arrays, ready for JSON."""
        figures: dict[str, object] = {"rule": self.rule, "mAP": self.map, **self.ranks}
        if self.integration != AVERAGE_PRECISIONS[0]:
            figures["average_precision"] = self.integration
        return figures | {"queries": self.queries, "counted": self.counted, "dropped": dict(self.dropped)}


def score(
    query: np.ndarray,
    gallery: np.ndarray,
    query_labels: Labels,
    gallery_labels: Labels,
    rule: str = "general",
    *,
    similarity: Similarity,
    max_rank: int = 50,
    block: int = 256,
    integration: str = AVERAGE_PRECISIONS[0],
) -> Scores:
    """Ranks the gallery for every query by similarity and scores the rankings.

    Args:
        query: embeddings [queries, dimension].
        gallery: embeddings [gallery images, dimension].
        query_labels: labels of the queries, arrays [queries].
        gallery_labels: labels of the gallery, arrays [gallery images].
        rule: name in RULES.
        similarity: the similarity of these embeddings.
        max_rank: length of the CMC curve.
        block: queries ranked at a time; memory is about 12 * block * gallery images bytes.
        integration: of the average precision, see `score_from_distances`.

    Returns:
        Scores; CMC and mAP follow Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.

    Raises:
        InputError: shapes or labels don't fit the rule, an embedding isn't a number, or no query has a correct image.
    """
    query, gallery = similarity.check(query, gallery)
    if block < 1:
        raise InputError(f"block is {block}; expected at least one query at a time.")
    distances = (np.negative(rows, out=rows) for rows in similarity.blocks(query, gallery, block))
    return score_from_distances(
        distances, query_labels, gallery_labels, rule, max_rank=max_rank, integration=integration
    )


def score_from_distances(
    distances: np.ndarray | Iterable[np.ndarray],
    query_labels: Labels,
    gallery_labels: Labels,
    rule: str = "general",
    *,
    max_rank: int = 50,
    integration: str = AVERAGE_PRECISIONS[0],
) -> Scores:
    """Scores rankings by given distances; equal distances rank in gallery order.

    Args:
        distances: [queries, gallery images], smaller is nearer; or an iterable of its blocks of rows, in query order.
        query_labels: labels of the queries, arrays [queries].
        gallery_labels: labels of the gallery, arrays [gallery images].
        rule: name in RULES.
        max_rank: length of the CMC curve.
        integration: of the average precision. "step": the mean of the precisions at the correct images. "trapezoid":
            the area under the precision-recall curve by the trapezoid rule, from precision 1 at recall 0, images of
            one distance as one step; never higher than "step" where no distances are equal.

    Returns:
        Scores, as `score` does.

    Raises:
        InputError: shapes or labels don't fit the rule, a distance isn't a number, or no query has a correct image.
    """
    matching = find_rule(rule)
    query_labels, gallery_labels = checked_labels("query", query_labels), checked_labels("gallery", gallery_labels)
    problem = unusable_labels(rule, query_labels, gallery_labels)
    if problem:
        raise InputError(f"{problem}; use a rule that does not compare it ('none' compares nothing), or label them.")
    queries, size = len(query_labels.identity), len(gallery_labels.identity)
    if not queries or not size:
        raise InputError(f"{queries} query and {size} gallery images to rank; expected at least one of each.")
    if max_rank < 1:
        raise InputError(f"max_rank is {max_rank}; expected at least 1.")
    if integration not in AVERAGE_PRECISIONS:
        raise InputError(f"eval.average_precision is {integration!r}; expected one of {', '.join(AVERAGE_PRECISIONS)}.")
    if isinstance(distances, np.ndarray):
        distances = [distances[start : start + 256] for start in range(0, len(distances), 256)]

    by_identity = np.argsort(gallery_labels.identity, kind="stable")
    average_precision = np.full(queries, np.nan)
    first_match = np.zeros(queries, np.int64)
    dropped: dict[str, int] = {}
    start = 0
    for rows in distances:
        rows = np.asarray(rows)
        stop = start + len(rows)
        if rows.ndim != 2 or rows.shape[1] != size or stop > queries:
            raise InputError(
                f"distances of shape {rows.shape} for queries from {start} on; "
                f"expected rows of {size} gallery images, {queries} queries in all."
            )
        labels = query_labels.take(np.arange(start, stop))
        precision, first, reasons = _score_rows(rows, labels, gallery_labels, by_identity, matching, start, integration)
        average_precision[start:stop], first_match[start:stop] = precision, first
        for reason, count in reasons.items():
            dropped[reason] = dropped.get(reason, 0) + count
        start = stop
    if start != queries:
        raise InputError(f"distances of {start} queries for labels of {queries}; expected one row per query.")

    matched = first_match[first_match > 0]
    if not len(matched):
        raise InputError(
            f"{explain_no_match(rule, dropped, query_labels, gallery_labels)}; expected at least one. "
            "Check the identity, camera and clothes labels or choose another rule."
        )
    cmc = np.cumsum(np.bincount(matched, minlength=max_rank + 1)[1 : max_rank + 1]) / len(matched)
    return Scores(
        rule=rule,
        map=float(np.nanmean(average_precision)),
        cmc=cmc,
        ranks={f"R-{k}": float(np.mean(matched <= k)) for k in RANKS},
        queries=queries,
        counted=len(matched),
        dropped=dropped,
        average_precision=average_precision,
        first_match=first_match,
        integration=integration,
    )


def _score_rows(
    rows: np.ndarray,
    query: Labels,
    gallery: Labels,
    by_identity: np.ndarray,
    rule: Rule,
    offset: int,
    integration: str,
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Returns average precision [n], rank of the first match [n] and reason -> dropped queries, of rows [n, gallery].

    Only images of the query's own identity are ever junk, so a rank among the kept images is the rank among all minus
    the junk before it: one plain sort of values per row, and no ranking of the whole gallery.
    """
    count = len(rows)
    pairs = same_identity(query, gallery, by_identity)
    row, column, same = pairs
    ends = np.cumsum(same)
    value = rows[row, column]
    junk, reasons = find_junk(rule, query, gallery, pairs)
    kept = same - np.bincount(row[junk], minlength=count)

    areas = np.full(count, np.nan)
    rank = np.empty(len(row), np.int64)
    through = np.empty(len(row), np.int64)
    for i in range(count):
        line = np.sort(rows[i])
        if np.isnan(line[-1]):
            raise InputError(f"query {offset + i} has a distance that is not a number; expected finite embeddings.")
        mine = slice(ends[i] - same[i], ends[i])
        rank[mine] = line.searchsorted(value[mine], "left")
        through[mine] = line.searchsorted(value[mine], "right")
        if integration == "trapezoid" and kept[i]:
            areas[i] = _trapezoids(value[mine], junk[mine], rank[mine], through[mine])
    for k in np.flatnonzero(through - rank > 1):
        rank[k] += np.count_nonzero(rows[row[k], : column[k]] == value[k])

    order = np.lexsort((rank, row))
    rank, junk, row = rank[order], junk[order], row[order]
    before = np.cumsum(junk) - junk
    before -= before[np.repeat(ends - same, same)]
    position = np.arange(len(row)) - np.repeat(ends - same, same)
    hits = position - before + 1.0  # correct images up to and with this one
    kept_rank = rank - before + 1  # among the images that the rule keeps
    keep = ~junk
    total = np.bincount(row[keep], weights=hits[keep] / kept_rank[keep], minlength=count)
    steps = np.divide(total, kept, out=np.full(count, np.nan), where=kept > 0)
    first = np.zeros(count, np.int64)
    leading = keep & (hits == 1)
    first[row[leading]] = kept_rank[leading]
    return steps if integration == "step" else areas, first, reasons


def _trapezoids(distances: np.ndarray, junk: np.ndarray, nearer: np.ndarray, through: np.ndarray) -> float:
    """Returns the area under one query's precision-recall curve by the trapezoid rule.

    Args:
        distances: of the images of the query's identity, [n].
        junk: which of them the rule ignores, [n] bool; not all.
        nearer: images of the gallery with a smaller distance than each, [n].
        through: images with its distance or a smaller one, [n].
    """
    hits, ignored = np.sort(distances[~junk]), np.sort(distances[junk])
    at, nearer, through = distances[~junk], nearer[~junk], through[~junk]
    # A curve has one point for each distance; each image there ends the same step of recall.
    before = nearer - ignored.searchsorted(at, "left")
    after = through - ignored.searchsorted(at, "right")
    starts = np.divide(hits.searchsorted(at, "left"), before, out=np.ones(len(at)), where=before > 0)
    return float((starts + hits.searchsorted(at, "right") / after).mean() / 2)
