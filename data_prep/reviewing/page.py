"""The review page: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.records import Row
from data_prep.reviewing.cards import STATUSES
from data_prep.reviewing.colours import KINDS
from data_prep.settings import STAGES
from data_prep.table import OK
from deskpro_jax.errors import InputError

_BINS = 20  # of the scores' histogram


def render(settings: Mapping[str, Any], rows: Sequence[Row], cards: Iterable[Mapping[str, Any]], title: str) -> str:
    """Returns the page.

    Args:
        settings: content of `prepare.json`.
        rows: of the whole table.
        cards: what to show of each sample, see `cards.card`.
        title: what the page is called.

    Raises:
        InputError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            f"the review page needs jinja2 ({error}): pip install 'deskpro_jax[prep]' brings it."
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("data_prep.reviewing"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("review.html").render(
        title=title,
        settings=settings,
        summary=summary(rows),
        histogram=histogram(rows),
        cards=list(cards),
        kinds=KINDS[1:],
        stages=STAGES,
        statuses=STATUSES,
    )


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns counts over the whole table, and the median height of the faces in pixels."""
    heights = [row["face_height"] for row in rows if row["face_height"] is not None]
    return {
        "photos": len(rows),
        "failed": sum(row["status"] != OK for row in rows),
        "parsed": sum(row["parser"] is not None for row in rows),
        "detected": sum(row["detector"] is not None for row in rows),
        "faces": sum(row["has_face"] for row in rows),
        "restored": sum(row["restorer"] is not None for row in rows),
        "face_height": float(np.median(heights)) if heights else None,
    }


def histogram(rows: Sequence[Row]) -> list[int]:
    """Returns how many faces have a score in each twentieth of 0 to 1."""
    scores = [row["score"] for row in rows if row["score"] is not None]
    return [int(count) for count in np.histogram(scores, _BINS, (0.0, 1.0))[0]]
