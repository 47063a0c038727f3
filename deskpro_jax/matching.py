"""Matching rules: which gallery images leave one query's ranking before it is scored."""

from __future__ import annotations

import dataclasses
import difflib
from typing import NamedTuple

import numpy as np

from deskpro_jax.errors import InputError

UNKNOWN = -1  # value of a camera or clothes label that nobody knows


class Labels(NamedTuple):
    """What is known about a set of images; each field is an int array [images].

    A negative identity is a distractor: it matches nobody. Camera and clothes are -1 where unknown.
    """

    identity: np.ndarray
    camera: np.ndarray
    clothes: np.ndarray

    def take(self, indices: np.ndarray) -> Labels:
        """Returns the labels of the images at `indices` [n], in that order."""
        return Labels(*(np.asarray(field)[indices] for field in self))


class Removal(NamedTuple):
    """Takes gallery images of the query's identity out of its ranking by comparing one label."""

    field: str  # "camera" or "clothes"
    equal: bool  # True removes images whose label equals the query's, False those whose label differs
    reason: str


@dataclasses.dataclass(frozen=True)
class Rule:
    """A matching rule: images of other identities always stay, images of the same identity leave by any removal."""

    name: str
    removals: tuple[Removal, ...]


_SAME_CAMERA = Removal("camera", True, "same camera")
_SAME_CLOTHES = Removal("clothes", True, "same clothes")
_OTHER_CLOTHES = Removal("clothes", False, "different clothes")
RULES = {
    rule.name: rule
    for rule in (
        Rule("none", ()),
        Rule("general", (_SAME_CAMERA,)),
        Rule("cc", (_SAME_CAMERA, _SAME_CLOTHES)),
        Rule("sc", (_SAME_CAMERA, _OTHER_CLOTHES)),
    )
}


def find_rule(name: str) -> Rule:
    """Returns the matching rule called `name`; an unknown name raises InputError with the near matches."""
    if name in RULES:
        return RULES[name]
    near = difflib.get_close_matches(name, RULES) or list(RULES)
    raise InputError(f"matching rule {name!r} is not known; did you mean {', '.join(near)}? Known: {', '.join(RULES)}.")


def unusable_labels(rule: str, query: Labels, gallery: Labels) -> str | None:
    """Returns why `rule` can't be applied to these labels (a label that it compares is unknown), or None."""
    for removal in find_rule(rule).removals:
        for split, labels in (("query", query), ("gallery", gallery)):
            known_person = np.asarray(labels.identity) >= 0
            unknown = int(np.count_nonzero(known_person & (np.asarray(getattr(labels, removal.field)) == UNKNOWN)))
            if unknown:
                return (
                    f"matching rule {rule!r} compares {removal.field}, but {unknown} of {len(known_person)} {split} "
                    f"images have {removal.field} {UNKNOWN} (unknown)"
                )
    return None


def checked_labels(split: str, labels: Labels) -> Labels:
    """Returns `labels` as arrays; fields of different length raise InputError that names the `split`."""
    arrays = Labels(*(np.asarray(field) for field in labels))
    if len({field.shape for field in arrays}) != 1 or arrays.identity.ndim != 1:
        shapes = ", ".join(f"{name} {field.shape}" for name, field in zip(Labels._fields, arrays, strict=True))
        raise InputError(f"{split} labels have shapes {shapes}; expected one value an image in each.")
    return arrays
