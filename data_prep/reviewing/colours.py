"""The colours of part labels: few kinds of parts, told apart without colour vision (palette of Okabe and Ito)."""

from __future__ import annotations

from typing import NamedTuple

from deskpro_jax.data.schema import LabelScheme


class Kind(NamedTuple):
    """Parts that are drawn alike."""

    name: str
    colour: str  # #rrggbb


BACKGROUND = Kind("background", "#000000")
CLOTHING = Kind("clothing", "#e69f00")
FACE = Kind("face", "#56b4e9")
HAIR = Kind("hair, hat", "#0072b2")
LIMBS = Kind("arms, legs", "#009e73")
SHOES = Kind("shoes", "#cc79a7")
OTHER = Kind("other", "#f0e442")
KINDS = (BACKGROUND, CLOTHING, FACE, HAIR, LIMBS, SHOES, OTHER)
_PARTS = {
    FACE: ("face", "head"),
    HAIR: ("hair", "hat"),
    LIMBS: ("arm", "arms", "leg", "legs"),
    SHOES: ("shoe",),
}


def kinds(scheme: LabelScheme) -> tuple[Kind, ...]:
    """Returns the kind of every label of a scheme; what counts as clothing there is clothing here."""

    def kind(label: int, name: str) -> Kind:
        if label == 0:
            return BACKGROUND
        if label in scheme.clothing:
            return CLOTHING
        last = name.split("-")[-1]
        return next((found for found, names in _PARTS.items() if last in names), OTHER)

    return tuple(kind(label, name) for label, name in enumerate(scheme.labels))
