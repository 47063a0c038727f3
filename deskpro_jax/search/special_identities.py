"""Identities that name no person: junk images, which are ignored, and distractors, which match nobody."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_NUMBER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class SpecialIdentities:
    """The identities of images that show no person of the data set; of Market-1501 "-1" is junk, "0000" a distractor.

    Attributes:
        junk: of images that are ignored; numbers are compared as numbers, so that 0 and 0000 are the same.
        distractors: of images that match nobody.
    """

    junk: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()

    def is_junk(self, identity: Any) -> bool:
        """Returns whether images of this identity are ignored."""
        return _is_among(identity, self.junk)

    def is_distractor(self, identity: Any) -> bool:
        """Returns whether images of this identity match nobody."""
        return _is_among(identity, self.distractors)

    def is_person(self, identity: Any) -> bool:
        """Returns whether an identity names a person: not where it is unknown, negative, junk or a distractor."""
        number = _number(identity)
        negative = number is not None and number < 0
        return not (identity is None or negative or self.is_junk(identity) or self.is_distractor(identity))


ALL_PEOPLE = SpecialIdentities()  # every identity that is not negative names a person


def _is_among(identity: Any, listed: Iterable[str]) -> bool:
    number = _number(identity)
    return any(str(identity) == text or (number is not None and number == _number(text)) for text in listed)


def _number(identity: Any) -> int | None:
    """Returns the number that an identity is, also as text, None for a name."""
    text = str(identity).strip()
    return int(text) if _NUMBER.fullmatch(text) else None
