"""The colours of part labels: few kinds of parts, told apart without colour vision (palette of Okabe and Ito)."""

from __future__ import annotations

from typing import NamedTuple

from deskpro_jax.data.schema import LabelScheme


class PartKind(NamedTuple):
    """Parts that are drawn alike."""

    name: str
    colour: str  # #rrggbb


BACKGROUND = PartKind("background", "#000000")
CLOTHING = PartKind("clothing", "#e69f00")
FACE = PartKind("face", "#56b4e9")
HAIR = PartKind("hair, hat", "#0072b2")
LIMBS = PartKind("arms, legs", "#009e73")
SHOES = PartKind("shoes", "#cc79a7")
OTHER = PartKind("other", "#f0e442")
KINDS = (BACKGROUND, CLOTHING, FACE, HAIR, LIMBS, SHOES, OTHER)
_PARTS = {
    FACE: ("face", "head"),
    HAIR: ("hair", "hat"),
    LIMBS: ("arm", "arms", "leg", "legs"),
    SHOES: ("shoe",),
}


def kinds(scheme: LabelScheme) -> tuple[PartKind, ...]:
    """Returns the kind of every label of a scheme; what counts as clothing there is clothing here."""

    def kind(label: int, name: str) -> PartKind:
        if label == 0:
            return BACKGROUND
        if label in scheme.clothing:
            return CLOTHING
        last = name.split("-")[-1]
        return next((found for found, names in _PARTS.items() if last in names), OTHER)

    return tuple(kind(label, name) for label, name in enumerate(scheme.labels))
