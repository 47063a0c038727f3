"""Which photos a review page shows: some of the doubtful ones, and the rest spread evenly over all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from data_prep.records import Row
from data_prep.table import OK

_SHARE = 6  # a sixth of the samples each: photos that could not be used, without a face, with the lowest scores


def choose(rows: Sequence[Row], count: int) -> list[int]:
    """Chooses photos to look at; the same table gives the same ones.

    Args:
        rows: of the table.
        count: how many, at most.

    Returns:
        Positions in ascending order.
    """
    quota = -(-count // _SHARE)
    failed = [i for i, row in enumerate(rows) if row["status"] != OK]
    faceless = [i for i, row in enumerate(rows) if row["detector"] and not row["has_face"]]
    scored = [i for i, row in enumerate(rows) if row["score"] is not None]
    lowest = sorted(scored, key=lambda i: (rows[i]["score"], i))[:quota]
    chosen: set[int] = set()
    for group in (failed, faceless, lowest):
        chosen |= set(_spread(group, min(quota, count - len(chosen))))
    rest = [i for i in range(len(rows)) if i not in chosen]
    return sorted(chosen | set(_spread(rest, count - len(chosen))))


def _spread(positions: Sequence[int], count: int) -> Iterable[int]:
    """Returns `count` of the positions at even distances, all of them where there are no more."""
    if count >= len(positions):
        return positions
    return (positions[(2 * i + 1) * len(positions) // (2 * count)] for i in range(count))
