"""Numbers the labels that authors give to outfits."""

from __future__ import annotations

from collections.abc import Sequence

from deskpro_jax.data.schema import UNKNOWN_CLOTHES


def number_outfits(labels: Sequence[str]) -> list[int]:
    """Returns a number for each label of an outfit, the same for the same label.

    Args:
        labels: of all images of a dataset, so that query and gallery are numbered together; "" where an outfit is not
            known.

    Returns:
        The labels' own numbers where all of them are integers >= 0, otherwise their positions among the sorted labels;
        -1 for "".
    """
    names = sorted({label for label in labels if label})
    if all(name.isdecimal() for name in names):
        numbers = {name: int(name) for name in names}
    else:
        numbers = {name: number for number, name in enumerate(names)}
    return [numbers.get(label, UNKNOWN_CLOTHES) for label in labels]
