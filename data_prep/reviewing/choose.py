"""Which photos a review page shows: some of the doubtful ones, and the rest spread evenly over all."""

from __future__ import annotations

import numpy as np

from data_prep.table import Overview

_SHARE = 6  # a sixth of the samples each: photos that could not be used, without a face, with the lowest scores


def choose(photos: Overview, count: int) -> list[int]:
    """Chooses photos to look at; the same table gives the same ones.

    Args:
        photos: numbers of the whole table.
        count: how many, at most.

    Returns:
        Positions in ascending order.
    """
    quota = -(-count // _SHARE)
    ranked = np.argsort(photos.score, kind="stable")  # photos without a score come last
    groups = (
        np.flatnonzero(photos.failed),
        np.flatnonzero(photos.detected & ~photos.has_face),
        ranked[: min(quota, int(np.isfinite(photos.score).sum()))],
    )
    chosen = np.zeros(len(photos.failed), bool)
    for group in groups:
        chosen[_spread(group, min(quota, count - int(chosen.sum())))] = True
    chosen[_spread(np.flatnonzero(~chosen), count - int(chosen.sum()))] = True
    return [int(position) for position in np.flatnonzero(chosen)]


def _spread(positions: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` of the positions at even distances, all of them where there are no more."""
    if count >= len(positions):
        return positions
    return positions[(2 * np.arange(count) + 1) * len(positions) // (2 * max(count, 1))]
