"""Terms of the loss that a fork adds: the functions that `loss.extra` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Array

from deskpro_jax.config.user_modules import find
from deskpro_jax.errors import InputError

# From the outputs and intermediates of the model, by stream, and the batch (images normalised) to a scalar.
Term = Callable[[Mapping[str, Mapping[str, Array]], Mapping[str, Mapping[str, Array]], Mapping[str, Array]], Array]


def added_terms(names: Sequence[str]) -> dict[str, Term]:
    """Returns the functions that `loss.extra` names, by the name that their term has in the metrics.

    Raises:
        InputError: one cannot be found, or two have one name.
    """
    terms: dict[str, Term] = {}
    for text in names:
        name = text.partition(":")[2]
        if name in terms:
            raise InputError(f"loss.extra names two functions called {name!r}: rename one of them.")
        terms[name] = find("loss.extra", text)
    return terms
