"""Terms of the loss that a fork adds: the functions that `loss.extra` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Array

from deskpro_jax.config.user_modules import find
from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import LossTerm, StepValues

# From the outputs and intermediates of the model, by stream, and the batch (images normalised) to a scalar.
Term = Callable[[Mapping[str, Mapping[str, Array]], Mapping[str, Mapping[str, Array]], Mapping[str, Array]], Array]


def extra_terms(names: Sequence[str]) -> tuple[LossTerm, ...]:
    """Returns the terms that `loss.extra` names, called like their functions, each with weight 1.

    Raises:
        InputError: one cannot be found, or two have one name.
    """
    terms: dict[str, LossTerm] = {}
    for text in names:
        name = text.partition(":")[2]
        if name in terms:
            raise InputError(f"loss.extra names two functions called {name!r}: rename one of them.")
        terms[name] = LossTerm(name, _as_term(find("loss.extra", text)))
    return tuple(terms.values())


def _as_term(function: Term) -> Callable[[StepValues], Array]:
    return lambda values: function(values.outputs, values.intermediates, values.inputs)
