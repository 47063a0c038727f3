"""What a fork adds without changing the package: a dataset, a term of the loss, a backbone."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from jaxtyping import Array

from deskpro_jax.errors import InputError

# From the outputs and intermediates of the model, by stream, and the batch (images normalised) to a scalar.
Term = Callable[[Mapping[str, Mapping[str, Array]], Mapping[str, Mapping[str, Array]], Mapping[str, Array]], Array]


def find(field: str, text: str) -> Any:
    """Finds what a field of the configuration names as "module:name".

    Modules are imported from wherever Python imports from, and from the folder of the configuration file.

    Args:
        field: dotted name of the field, for errors.
        text: its value.

    Raises:
        InputError: it is no such text, or there is no such module or name.
    """
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise InputError(f"{field} has {text!r}; expected 'module:name', as in my_losses:spread.")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{field} has {text!r}, and {module} cannot be imported ({error}): put the file beside the configuration, "
            "or its folder into PYTHONPATH."
        ) from error
    if not hasattr(found, name):
        near = difflib.get_close_matches(name, dir(found), n=3)
        meant = f"did you mean {' or '.join(near)}?" if near else "correct the name."
        raise InputError(f"{field} has {text!r}, and {module} has no {name!r}; {meant}")
    return getattr(found, name)


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


def modules(names: Sequence[str]) -> list[ModuleType]:
    """Returns the modules of what fields name as "module:name"; other values are left out."""
    return [importlib.import_module(text.partition(":")[0]) for text in names if ":" in text]


def add_dataset(name: str, layout: Any, protocols: Sequence[Any]) -> None:
    """Adds a dataset, to be called in the file of its configuration before `data.name` is set.

    Args:
        name: for `data.name`; a second call with the same name replaces the first.
        layout: its folders and file names, a `deskpro_jax.data.authors.Layout`.
        protocols: under which it is reported, each a `deskpro_jax.named_protocols.Protocol`.

    Raises:
        InputError: the name is one of the package's own or no plain name, or there is no protocol.
    """
    from deskpro_jax.data import authors, dataset
    from deskpro_jax.named_protocols import PROTOCOLS

    if name in dataset.NAMES:
        raise InputError(f"a dataset {name!r} comes with the package: choose another name.")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"{name!r} is no name of a dataset; expected small letters, digits and _, as my_photos.")
    if not protocols:
        raise InputError(f"dataset {name!r} has no protocols: give at least one.")
    authors.LAYOUTS[name], PROTOCOLS[name] = layout, tuple(protocols)
