"""Finds what a field of the configuration names in a user module, as "module:name"."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from deskpro_jax.config import expect
from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.errors import InputError

T = TypeVar("T")


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
    loaded = import_module(field, module)
    if not hasattr(loaded, name):
        hint = did_you_mean(name, dir(loaded)) or "correct the name."
        raise InputError(f"{field} has {text!r}, and {module} has no {name!r}; {hint}")
    return getattr(loaded, name)


def find_in(field: str, name: str, table: Mapping[str, T], kind: type[T]) -> T:
    """Returns the entry of a table that a field names, or the object of a fork that it names as "module:name".

    Args:
        field: dotted name of the field, for errors.
        name: its value.
        table: the entries of this package, by name.
        kind: type that the object of a fork must have.

    Raises:
        InputError: there is no such entry or object, or the object is of another type.
    """
    if ":" not in name:
        return table[expect.one_of(field, name, tuple(table))]
    own = find(field, name)
    if not isinstance(own, kind):
        raise InputError(f"{field} is {name!r}, a {type(own).__name__}; expected a {kind.__name__}.")
    return own


def import_module(field: str, name: str, known: Sequence[str] = ()) -> ModuleType:
    """Imports the user module that a field of the configuration names.

    Args:
        field: dotted name of the field, for errors.
        name: of the module.
        known: names that the field may have beside those of user modules, for errors.

    Raises:
        InputError: there is no such module, or it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a user module raises while it is imported
        hint = did_you_mean(name, known)
        raise InputError(
            f"{field} has {name!r}, and {name} cannot be imported ({type(error).__name__}: {error}):"
            f" {f'{hint} Otherwise ' if hint else ''}put the file beside the configuration, or its folder into"
            " PYTHONPATH."
        ) from error
