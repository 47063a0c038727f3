"""Protocols as data: which images take part and which matching rule applies (docs/evaluation.md gives the sources)."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which images of a split take part; None lets every value pass."""

    cameras: tuple[int, ...] | None = None
    clothes: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One named setting under which scores are reported.

    Attributes:
        name: unique among the protocols of a dataset.
        description: in words, for results and reports.
        rule: matching rule, a name in `evaluation.matching_rules.RULES`.
        query: the queries that take part.
        gallery: the gallery images that take part.
        first_camera_in_gallery: whether filters count cameras from the gallery's lowest number instead of from 0.
        draws: > 0: single-shot, that many draws of one gallery image per identity; 0: the whole gallery.
        camera: how the rule reads camera labels, a name in `evaluation.matching_rules.CAMERA_READINGS`.
        by_tracklet: whether tracklets are compared in place of images: the mean of a tracklet's embeddings stands for
            it (`evaluation.tracklets`).
        locations: cameras that stand at one place, for rules that compare locations.
    """

    name: str
    description: str
    rule: str
    query: Filter = Filter()
    gallery: Filter = Filter()
    first_camera_in_gallery: bool = False
    draws: int = 0
    camera: str = "number"
    by_tracklet: bool = False
    locations: tuple[tuple[int, ...], ...] = ()


GENERAL = Protocol("general", "images of the query's identity from the query's camera removed", "general")
CLOTHES_CHANGING = Protocol(
    "cc", "clothes-changing: images of the query's identity from the query's camera or in its clothes removed", "cc"
)
SAME_CLOTHES = Protocol(
    "sc", "same clothes: images of the query's identity from the query's camera or in other clothes removed", "sc"
)
UNFILTERED = Protocol("none", "no image removed", "none")
