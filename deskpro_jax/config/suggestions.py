"""What a misspelt name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a question that names what is spelt like `name`, for instance "did you mean celeb or celeb_light?".

    Args:
        name: a name that is not known.
        known: all that are.

    Returns:
        The question with the closest name first and at most three, "" where none is close.
    """
    close = difflib.get_close_matches(name, list(known))
    return f"did you mean {' or '.join(close)}?" if close else ""
