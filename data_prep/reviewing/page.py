"""The review page: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from data_prep.reviewing.cards import STATUSES
from data_prep.reviewing.colours import KINDS
from data_prep.settings import STAGES
from data_prep.table import Overview
from deskpro_jax.errors import missing_package

_BINS = 20  # of the scores' histogram


def render(settings: Mapping[str, Any], photos: Overview, cards: Iterable[Mapping[str, Any]], title: str) -> str:
    """Returns the page.

    Args:
        settings: content of `prepare.json`.
        photos: numbers of the whole table.
        cards: what to show of each sample, see `cards.card`.
        title: what the page is called.

    Raises:
        InputError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise missing_package("the review page", "prep", error) from error
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
        summary=summary(photos),
        histogram=histogram(photos),
        cards=list(cards),
        kinds=KINDS[1:],
        stages=STAGES,
        statuses=STATUSES,
    )


def summary(photos: Overview) -> dict[str, Any]:
    """Returns counts over the whole table, and the median height of the faces in pixels."""
    heights = photos.face_height[np.isfinite(photos.face_height)]
    return {
        "photos": len(photos.failed),
        "failed": int(photos.failed.sum()),
        "parsed": int(photos.parsed.sum()),
        "detected": int(photos.detected.sum()),
        "faces": int(photos.has_face.sum()),
        "outside_head": int(photos.outside_head.sum()),
        "restored": int(photos.restored.sum()),
        "face_height": float(np.median(heights)) if len(heights) else None,
    }


def histogram(photos: Overview) -> list[int]:
    """Returns the number of faces with a score in each twentieth of 0 to 1."""
    scores = photos.score[np.isfinite(photos.score)]
    return [int(count) for count in np.histogram(scores, _BINS, (0.0, 1.0))[0]]
