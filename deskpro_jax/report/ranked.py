"""Ranked lists: queries with the best, the median and the worst average precision, and what the gallery gives them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deskpro_jax.evaluation.ranking import Scores
from deskpro_jax.report.view import View

GROUPS = ("best", "median", "worst")


class Entry(NamedTuple):
    """A gallery image in a ranking: its position in the split, and whether it shows the query's person."""

    position: int
    right: bool
    similarity: float


class RankedList(NamedTuple):
    """A query and the gallery images that come first.

    Attributes:
        query: position in the split.
        average_precision: of its whole ranking.
        first_match: rank of the first right image, from 1.
        right: right images in the ranking.
        junk: number of images of its identity that the protocol ignores.
        entries: the first of the ranking, best first.
    """

    query: int
    average_precision: float
    first_match: int
    right: int
    junk: int
    entries: list[Entry]


def choose(average_precision: np.ndarray, identity: np.ndarray, count: int) -> dict[str, list[int]]:
    """Chooses queries with the best, the median and the worst average precision, none twice.

    Of queries with equal precision those of different people come first.

    Args:
        average_precision: [queries], nan where a query is not counted.
        identity: [queries].
        count: queries of each group, at most.

    Returns:
        Group -> positions, from the best downwards within "best" and "median", the worst first within "worst".
    """
    counted = np.flatnonzero(~np.isnan(average_precision))
    count = min(count, max(1, len(counted) // len(GROUPS)))
    if not len(counted) or count < 1:
        return {}
    again = _occurrence(np.stack([average_precision[counted], identity[counted]], axis=1))
    rising = counted[np.lexsort((counted, again, average_precision[counted]))]
    falling = counted[np.lexsort((counted, again, -average_precision[counted]))]
    best = [int(position) for position in falling[:count]]
    worst = [int(position) for position in rising if position not in best][:count]
    middle = [int(position) for position in falling if position not in best and position not in worst]
    start = max(0, (len(middle) - count + 1) // 2)
    groups = {"best": best, "median": middle[start : start + count], "worst": worst}
    return {group: positions for group, positions in groups.items() if positions}


def _occurrence(keys: np.ndarray) -> np.ndarray:
    """Returns for each row of keys [n, k] how many equal rows come before it."""
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.ravel()
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    first = np.searchsorted(ordered, ordered)
    occurrence = np.empty(len(group), np.int64)
    occurrence[order] = np.arange(len(group)) - first
    return occurrence


def ranked_lists(view: View, scores: Scores, chosen: dict[str, list[int]], length: int) -> dict[str, list[RankedList]]:
    """Ranks the gallery for the chosen queries.

    Args:
        view: stream and protocol.
        scores: of the view.
        chosen: group -> positions of queries in the view.
        length: entries of each list, at most.

    Returns:
        Group -> lists.
    """
    rows = np.array([row for positions in chosen.values() for row in positions], np.int64)
    lists: dict[int, RankedList] = {}
    for block in view.blocks(rows):
        for i, row in enumerate(block.rows):
            mine = block.pairs.query == i
            out = block.pairs.gallery[mine & block.junk]
            similarity = block.similarity[i].astype(np.float64)
            order = np.argsort(-similarity, kind="stable")  # equal similarities in gallery order, as they are scored
            order = order[~np.isin(order, out)]
            same = view.gallery_labels.identity[order[:length]] == view.query_labels.identity[row]
            lists[int(row)] = RankedList(
                int(view.query_index[row]),
                float(scores.average_precision[row]),
                int(scores.first_match[row]),
                int(np.count_nonzero(mine)) - len(out),
                len(out),
                [
                    Entry(int(view.gallery_index[at]), bool(right), float(similarity[at]))
                    for at, right in zip(order[:length], same, strict=True)
                ],
            )
    return {group: [lists[row] for row in positions] for group, positions in chosen.items()}
