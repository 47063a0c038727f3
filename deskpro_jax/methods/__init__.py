"""Published methods, one file each: module, streams, recipe, names of published weights (`models/contract.py`)."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import ml_collections

from deskpro_jax.config import expect
from deskpro_jax.config.fields import flatten
from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.config.user_modules import import_module
from deskpro_jax.errors import InputError
from deskpro_jax.models import check as model_check
from deskpro_jax.models.contract import PhaseSpec, PublishedNames

_FUNCTIONS = ("build", "streams", "recipe", "check")
_OF_STREAMS = ("network", "stream", "terms", "check")  # of a method that can be a stream of another one
_OWN_GROUPS = ("model.", "loss.")  # fields that a method has to itself there
METHODS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__"))


def find_method(name: str, field: str = "model.name", functions: Sequence[str] = _FUNCTIONS) -> ModuleType:
    """Returns the module of a method.

    Args:
        name: a method of this package, or the name of a user module.
        field: of the configuration that has the name, for errors.
        functions: names of those that it must have.

    Raises:
        InputError: there is no such module, or it is not a method.
    """
    if name in METHODS:
        module = importlib.import_module(f"{__name__}.{name}")
    else:
        module = import_module(field, name, known=METHODS)
    if missing := [function for function in functions if not callable(getattr(module, function, None))]:
        raise InputError(f"{field} is {name!r}, whose module has no function {missing[0]!r}: see docs/forking.md.")
    return module


# What the variants of every method but DeSKPro have in common: a network on the photo.
_ON_PHOTOS = {"model.body": True, "model.face": "none", "model.attention": "none"}


def variants() -> dict[str, dict[str, object]]:
    """Returns the variants of the configuration that train each method of this package, with the fields that they set.

    Raises:
        RuntimeError: two methods have a variant of one name.
    """
    result: dict[str, dict[str, object]] = {}
    for method in METHODS:
        for name, fields in getattr(find_method(method), "VARIANTS", {}).items():
            if name in result:
                raise RuntimeError(f"two methods have a variant {name!r}: rename that of {method}.")
            result[name] = {**_ON_PHOTOS, "model.name": method, **fields}
    return result


def debug_fields(config: ml_collections.ConfigDict) -> dict[str, object]:
    """Returns the fields that the variant `debug` sets for the method beside those of all: the narrowest network."""
    fields = _debug(config.model.name)
    if config.model.body_method:
        own = _debug(str(variants().get(config.model.body_method, {}).get("model.name", config.model.body_method)))
        options = tuple(f"{name}={value}" for name, value in own.items() if name.startswith("model."))
        fields["model.body_options"] = options
    return fields


def _debug(method: str) -> dict[str, object]:
    return dict(getattr(find_method(method), "DEBUG", {}))


def of_stream(
    config: ml_collections.ConfigDict, field: str, name: str, options: Sequence[str]
) -> tuple[ModuleType, ml_collections.ConfigDict]:
    """Returns a method that gives a stream of another one, and the configuration that it is given there.

    Args:
        config: of the other method.
        field: of the configuration that names the method, for errors.
        name: a variant of `variants`, or the name of a user module.
        options: changes to the published fields of `model` and `loss`, as "model.parts=4".

    Raises:
        InputError: there is no such method or field, or the method refuses their values.
    """
    known = variants()
    if ":" not in name and name not in known and name not in METHODS and "." not in name:
        hint = did_you_mean(name, known)
        if hint:
            raise InputError(f"{field} is {name!r}; {hint}")
    published = known.get(name, {"model.name": name, **_ON_PHOTOS})
    method = find_method(str(published["model.name"]), field, _OF_STREAMS)
    own = config.copy_and_resolve_references()
    own.model.body_method, own.model.body_options = "", ()
    own.update_from_flattened_dict({key: value for key, value in published.items() if key.startswith(_OWN_GROUPS)})
    for option in options:
        _set(own, field, option)
    model_check.check(own)
    method.check(own)
    return method, own


def other_methods(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the names of the methods that stand in place of networks of `model.name`, in what is embedded."""
    body = config.model.body_method if config.model.body else ""
    teacher = config.teacher.method if config.model.face == "teacher" else ""
    return tuple(name for name in (body, teacher) if name)


def _set(config: ml_collections.ConfigDict, field: str, option: str) -> None:
    """Sets a field as an option says."""
    key, equals, text = option.partition("=")
    names = [key for key in flatten(config) if key.startswith(_OWN_GROUPS)]
    if not equals or key not in names:
        hint = did_you_mean(key, names) or "expected a field of model or loss with its value, as 'model.parts=4'."
        raise InputError(f"the options of {field} have {option!r}; {hint}")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    try:
        config.update_from_flattened_dict({key: value})
    except (TypeError, ValueError) as error:
        raise InputError(f"the options of {field} have {option!r}, which is of another type: {error}") from error


def published_names() -> Iterator[tuple[str, PublishedNames]]:
    """Yields how files name the tensors of each method of this package, with the name of the method."""
    for name in METHODS:
        yield from ((name, names) for names in names_of(name))


def names_of(name: str) -> tuple[PublishedNames, ...]:
    """Returns how files name the tensors of a method's network; empty where `weights.families` knows them."""
    every = getattr(find_method(name), "NAMES", ())
    return tuple(names for names in every if isinstance(names, PublishedNames))


def families_of(name: str) -> tuple[str, ...]:
    """Returns the families of `weights.families` that hold networks of a method."""
    return tuple(family for family in getattr(find_method(name), "NAMES", ()) if isinstance(family, str))


def check(config: ml_collections.ConfigDict) -> None:
    """Checks `model.*`, each field by itself and then what the method says of them together.

    Raises:
        InputError: a field has a value that no module can be built from; the message names it.
    """
    find_method(expect.text(config, "model.name", empty=False))
    model_check.check(config)
    find_method(config.model.name).check(config)


def phases(config: ml_collections.ConfigDict) -> tuple[PhaseSpec, ...]:
    """Returns the phases of the configured method in the order of their training.

    A method of a single phase needs no `phases` of its own: the phase is called like the method.

    Raises:
        InputError: a field of the model has a value that no module can be built from.
    """
    check(config)
    method = find_method(config.model.name)
    if hasattr(method, "phases"):
        found: tuple[PhaseSpec, ...] = method.phases(config)
        return found
    name = config.model.name.rpartition(".")[2]
    streams, train = method.streams(config), config.train
    init = {stream.name: stream.name for stream in streams if stream.name in config.init}
    return (
        PhaseSpec(name, method.build, streams, method.recipe(config), train.epochs, train.schedule_epochs, True, init),
    )
