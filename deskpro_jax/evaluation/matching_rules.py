"""Matching rules: which gallery images are junk for a query, that is ignored in its ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.errors import InputError

UNKNOWN = -1  # value of a label other than the identity that nobody knows
NO_PERSON = "the query shows an unknown person (negative identity)"
NO_IMAGE = "no image of this identity in the gallery"


class Labels(NamedTuple):
    """What is known about a set of images (or of tracklets); each field is an int array [images].

    A negative identity is a distractor: it matches nobody (`schema.JUNK` takes no part in a protocol). Other labels are
    -1 where unknown, None where they are unknown everywhere.
    """

    identity: np.ndarray
    camera: np.ndarray
    clothes: np.ndarray
    tracklet: np.ndarray | None = None
    scale: np.ndarray | None = None
    location: np.ndarray | None = None  # of the camera, as a protocol has it

    def take(self, indices: np.ndarray) -> Labels:
        """Returns the labels of the images at `indices` [n], in that order."""
        fields: dict[str, np.ndarray] = {
            name: np.asarray(field)[indices] for name, field in self._asdict().items() if field is not None
        }
        return Labels(**fields)


def _first_digit(numbers: np.ndarray) -> np.ndarray:
    numbers = numbers.copy()
    while (numbers > 9).any():
        numbers = np.where(numbers > 9, numbers // 10, numbers)
    return numbers


# How camera labels are read before a rule compares them. The first digit is what a regular expression that ends in
# `(\d)` takes of a number, so that 1 and 10 to 19 become the same camera.
CAMERA_READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "number": lambda numbers: numbers,
    "first_digit": _first_digit,
}


class Junk(NamedTuple):
    """Makes gallery images of the query's identity junk by comparing one label."""

    field: str  # of `Labels`
    equal: bool  # True: images whose label equals the query's are junk; False: those whose label differs
    reason: str


@dataclasses.dataclass(frozen=True)
class Rule:
    """A matching rule: images of the query's identity are junk by any of `junk`, images of other people never."""

    name: str
    junk: tuple[Junk, ...]


_SAME_CAMERA = Junk("camera", True, "same camera")
_SAME_CLOTHES = Junk("clothes", True, "same clothes")
_OTHER_CLOTHES = Junk("clothes", False, "different clothes")
_SAME_TRACKLET = Junk("tracklet", True, "same tracklet")
_LOCATION = Junk("location", True, "same location"), Junk("location", False, "different location")
_SCALE = Junk("scale", True, "same scale"), Junk("scale", False, "different scale")
RULES = {
    rule.name: rule
    for rule in (
        Rule("none", ()),
        Rule("general", (_SAME_CAMERA,)),
        Rule("cc", (_SAME_CAMERA, _SAME_CLOTHES)),
        Rule("sc", (_SAME_CAMERA, _OTHER_CLOTHES)),
        Rule("tracklet", (_SAME_TRACKLET,)),
        Rule("other_location", (_SAME_CAMERA, _LOCATION[0])),
        Rule("same_location", (_SAME_CAMERA, _LOCATION[1])),
        Rule("other_scale", (_SAME_CAMERA, _SCALE[0])),
        Rule("same_scale", (_SAME_CAMERA, _SCALE[1])),
    )
}


def find_rule(name: str) -> Rule:
    """Returns the matching rule called `name`; an unknown name raises InputError with similar names."""
    if name in RULES:
        return RULES[name]
    hint = did_you_mean(name, RULES) or "correct the name."
    raise InputError(f"matching rule {name!r} is not known; {hint} Known: {', '.join(RULES)}.")


def unusable_labels(rule: str, query: Labels, gallery: Labels) -> str | None:
    """Returns why `rule` can't be applied to these labels (a label that it compares is unknown), or None."""
    for junk in find_rule(rule).junk:
        for split, labels in (("query", query), ("gallery", gallery)):
            known_person = np.asarray(labels.identity) >= 0
            values = getattr(labels, junk.field)
            unknown = int(
                np.count_nonzero(known_person & (np.asarray(UNKNOWN if values is None else values) == UNKNOWN))
            )
            if unknown:
                return (
                    f"matching rule {rule!r} compares {junk.field}, but {unknown} of {len(known_person)} {split} "
                    f"images have {junk.field} {UNKNOWN} (unknown)"
                )
    return None


class Pairs(NamedTuple):
    """Every pair of a query and a gallery image of its identity, those of one query one after the other.

    Attributes:
        query: [pairs] position of the query.
        gallery: [pairs] position of the gallery image.
        counts: [queries] pairs of each query; none where the query shows an unknown person.
    """

    query: np.ndarray
    gallery: np.ndarray
    counts: np.ndarray


def same_identity(query: Labels, gallery: Labels, by_identity: np.ndarray | None = None) -> Pairs:
    """Pairs every query with the gallery images of its identity.

    Args:
        query: labels of the queries, arrays [queries].
        gallery: labels of the gallery, arrays [gallery images].
        by_identity: [gallery images] stable order of the gallery by identity, where it is known already.

    Returns:
        Pairs.
    """
    if by_identity is None:
        by_identity = np.argsort(gallery.identity, kind="stable")
    ordered = gallery.identity[by_identity]
    begin = np.searchsorted(ordered, query.identity, "left")
    count = np.where(query.identity < 0, 0, np.searchsorted(ordered, query.identity, "right") - begin)
    row = np.repeat(np.arange(len(count)), count)
    start = np.cumsum(count) - count
    return Pairs(row, by_identity[np.arange(len(row)) - start[row] + begin[row]], count)


def find_junk(rule: Rule, query: Labels, gallery: Labels, pairs: Pairs) -> tuple[np.ndarray, dict[str, int]]:
    """Applies a rule to pairs of one identity.

    Args:
        rule: the matching rule.
        query: labels of the queries, arrays [queries].
        gallery: labels of the gallery, arrays [gallery images].
        pairs: from `same_identity` of the same labels.

    Returns:
        Which pairs are junk, bool [pairs], and reason -> number of queries that are left without any pair.
    """
    is_junk = np.zeros(len(pairs.query), bool)
    reasons: dict[str, int] = {}
    undecided = np.ones(len(pairs.counts), bool)

    def drop(reason: str, dropped: np.ndarray) -> None:
        new = int(np.count_nonzero(undecided & dropped))
        undecided[dropped] = False
        if new:
            reasons[reason] = new

    drop(NO_PERSON, query.identity < 0)
    drop(NO_IMAGE, pairs.counts == 0)
    for junk in rule.junk:
        equal = getattr(query, junk.field)[pairs.query] == getattr(gallery, junk.field)[pairs.gallery]
        hit = equal if junk.equal else ~equal
        taken = np.bincount(pairs.query[hit], minlength=len(pairs.counts))
        drop(f"all removed by {junk.reason}", taken == pairs.counts)
        is_junk |= hit
    together = " and ".join(junk.reason for junk in rule.junk)
    taken = np.bincount(pairs.query[is_junk], minlength=len(pairs.counts))
    drop(f"all removed by {together}", taken == pairs.counts)
    return is_junk, reasons


def no_valid_query(rule: str, query: Labels, gallery: Labels) -> str | None:
    """Returns why no query at all has a correct gallery image left under `rule`, or None where one has."""
    is_junk, reasons = find_junk(find_rule(rule), query, gallery, same_identity(query, gallery))
    return None if not is_junk.all() else explain_no_match(rule, reasons, query, gallery)


def explain_no_match(rule: str, reasons: dict[str, int], query: Labels, gallery: Labels) -> str:
    """Returns the sentence that says by which labels all correct gallery images are junk."""
    why = "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
    return (
        f"no query has a correct gallery image left under rule {rule!r}: {why} "
        f"({len(query.identity)} queries, {len(gallery.identity)} gallery images)"
    )


def checked_labels(split: str, labels: Labels) -> Labels:
    """Returns `labels` as arrays; fields of different length raise InputError that names the `split`."""
    arrays = {name: np.asarray(field) for name, field in labels._asdict().items() if field is not None}
    if len({field.shape for field in arrays.values()}) != 1 or arrays["identity"].ndim != 1:
        shapes = ", ".join(f"{name} {field.shape}" for name, field in arrays.items())
        raise InputError(f"{split} labels have shapes {shapes}; expected one value per image in each.")
    return Labels(**arrays)
