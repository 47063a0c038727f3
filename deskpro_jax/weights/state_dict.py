"""Finds the state dict in what a checkpoint holds: under its usual names, plain or averaged (EMA)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from absl import logging

from deskpro_jax.errors import InputError
from deskpro_jax.weights.families import WRAPPERS as NAME_WRAPPERS
from deskpro_jax.weights.inert import Tensor

MAX_DEPTH = 4  # of wrappers around a state dict
# Under which names checkpoints keep their state dict, in order of preference.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights")
# Plain weights, as training moved them, or their exponential moving average.
CHOICES = ("plain", "ema")
_AVERAGED = {"ema", "swa", "averaged", "avg", "shadow"}  # words that name averaged weights
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_AVERAGED_MODEL = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_COUNTERS = {_AVERAGED_MODEL, "num_updates", "decay", "initted", "step"}  # beside averaged weights
_CLASSIFIER = "classifier_state_dict"  # beside that of the network, in checkpoints of FIRe2
_OPTIMISER = ("optimizer", "optimizer_state_dict", "optim")


def find_state_dict(tree: Any, source: str, weights: str | None = None) -> Mapping[Any, Any]:
    """Returns the state dict of a network within what a file holds.

    Args:
        tree: what was unpickled.
        source: what messages call the file.
        weights: which of plain and EMA weights are read where there are both, one of `CHOICES`; None for the plain
            ones, with a warning that says so.

    Raises:
        InputError: there is none, or no EMA weights and they were asked for.
    """
    if isinstance(tree, Tensor):
        raise InputError(f"{source} holds one tensor without a name; expected a state dict.")
    if not isinstance(tree, dict):
        raise InputError(f"{source} holds a {type(tree).__name__}; expected a state dict of tensors by name.")
    return _find(tree, source, weights, 0)


def choose_names(
    tensors: Mapping[Any, Any], source: str, weights: str | None = None, averaged: bool = False
) -> Mapping[Any, Any]:
    """Returns the tensors of one network where names say that others are its average: "model.*" and "model_ema.*".

    Args:
        tensors: by name.
        source: what messages call the file.
        weights: as for `find_state_dict`.
        averaged: whether all of them are known to be averaged.

    Raises:
        InputError: there are no EMA weights, and they were asked for.
    """
    prefixes = {name: _averaged_prefix(name) for name in tensors}
    copies = {name[len(prefix) :]: tensors[name] for name, prefix in prefixes.items() if prefix}
    rest = {name: tensors[name] for name, prefix in prefixes.items() if not prefix}
    if copies and rest and not _without_wrappers(copies) & _without_wrappers(rest):
        copies, rest = {}, dict(tensors)  # the network has a part of that name
    first = next((prefix for prefix in prefixes.values() if prefix), "")
    averaged = averaged or _AVERAGED_MODEL in _without_wrappers(rest)
    if averaged or not copies:
        if weights == "ema" and not averaged:
            raise InputError(f"{source} holds no EMA weights (under 'ema', 'model_ema', ...): leave out --weights ema.")
        return _without_counters(rest) if averaged else rest
    if not rest:
        if weights != "ema":
            logging.warning("%s holds EMA weights only (names with %r in front): they are read.", source, first)
        return _without_counters(copies)
    if weights is None:
        logging.warning(
            "%s holds plain and EMA weights (names with %r in front): the plain ones are read; --weights ema takes the"
            " others.",
            source,
            first,
        )
    return _without_counters(copies) if weights == "ema" else rest


def _is_averaged(name: Any) -> bool:
    return isinstance(name, str) and any(word.lower() in _AVERAGED for word in _WORD.findall(name))


def _averaged_prefix(name: Any) -> str:
    """Returns the start of a tensor's name that says that it is averaged, "" where there is none."""
    if not isinstance(name, str):
        return ""
    start = len(name) - len(_bare(name))
    module, dot, _ = name[start:].partition(".")
    return f"{name[:start]}{module}{dot}" if dot and _is_averaged(module) else ""


def _bare(name: str) -> str:
    """Returns the name of a tensor without the modules that only hold the network."""
    return re.sub(NAME_WRAPPERS, "", name, count=1)


def _without_wrappers(names: Iterable[Any]) -> set[str]:
    return {_bare(name) for name in names if isinstance(name, str)}


def _without_counters(tensors: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in tensors.items() if not (isinstance(name, str) and _bare(name) in _COUNTERS)}


def _find(
    tree: dict[Any, Any], source: str, weights: str | None, depth: int, averaged_only: bool = False
) -> Mapping[Any, Any]:
    known: dict[tuple[int, int], bool] = {}
    names = ", ".join(repr(name)[:40] for name in list(tree)[:8]) or "nothing"
    if {"state", "param_groups"} <= set(tree):
        raise _only_optimiser(source, names)
    inner = {name: value for name, value in tree.items() if isinstance(value, dict) and _holds_tensors(value, known)}
    averaged = [name for name in inner if _is_averaged(name)]
    plain = [name for name in inner if name not in averaged and name not in _OPTIMISER]
    own = _own_tensors(tree)
    wrapper = next((name for name in WRAPPERS if name in plain), None)
    if wrapper is None and not own and len(plain) == 1:
        wrapper = plain[0]
    if averaged and (weights == "ema" or (wrapper is None and not own and not plain)):
        if weights != "ema":
            logging.warning("%s holds EMA weights only (under %r): they are read.", source, averaged[0])
        wrapper, weights, averaged_only = averaged[0], "plain", True
    elif averaged and weights is None:
        logging.warning(
            "%s holds plain and EMA weights (under %r): the plain ones are read; --weights ema takes the others.",
            source,
            averaged[0],
        )
    if wrapper is not None and depth < MAX_DEPTH:
        network = _find(inner[wrapper], source, weights, depth + 1, averaged_only)
        classifier = inner.get(_CLASSIFIER, {}) if wrapper != _CLASSIFIER else {}
        return {**network, **{f"classifier.{name}": value for name, value in classifier.items()}}
    if own or weights == "ema":
        return choose_names(tree, source, weights, averaged_only)
    if any(name in tree for name in _OPTIMISER):
        raise _only_optimiser(source, names)
    raise InputError(
        f"{source}: no state dict found; it holds {names}. Expected tensors by name, or one of {WRAPPERS}."
    )


def _only_optimiser(source: str, names: str) -> InputError:
    return InputError(
        f"{source} holds the state of an optimiser and no weights ({names}): give the file that has the network's"
        " state_dict, or save that."
    )


def _own_tensors(tree: dict[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in tree.values())


def _holds_tensors(tree: dict[Any, Any], known: dict[tuple[int, int], bool], depth: int = 0) -> bool:
    # Each mapping is searched once per depth: a small pickle can hold the same one a million times.
    key = id(tree), depth
    if key not in known:
        known[key] = _own_tensors(tree) or (
            depth < MAX_DEPTH
            and any(isinstance(value, dict) and _holds_tensors(value, known, depth + 1) for value in tree.values())
        )
    return known[key]
