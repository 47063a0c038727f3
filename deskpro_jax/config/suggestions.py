"""What a misspelt name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a question that names what is spelt like `name`, for instance "did you mean celeb or celeb_light?".

    Args:
        name: a name that is not known.
        known: all that are.

    Returns:
        The question with the closest name first and at most three, "" where none is close.
    """
    close = closest(name, known)
    return f"did you mean {' or '.join(close)}?" if close else ""


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> Sequence[str]:
    """Returns at most three known names that are spelt like `name`, the closest first.

    Args:
        name: a name that is not known.
        known: all that are.
        cutoff: how similar they have to be, from 0 to 1.
    """
    return difflib.get_close_matches(name, list(known), cutoff=cutoff)
