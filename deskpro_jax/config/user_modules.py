"""Finds what a field of the configuration names in a user module, as "module:name"."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from deskpro_jax.errors import InputError


def find(field: str, text: str) -> Any:
    """Finds what a field of the configuration names as "module:name".

    Modules are imported from wherever Python imports from, and from the folder of the configuration file.

    Args:
        field: dotted name of the field, for errors.
        text: its value.

    Raises:
        InputError: the text is not of that form, or there is no such module or name.
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
