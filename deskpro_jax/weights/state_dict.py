"""Finds the state dict in what a checkpoint holds: under its usual names, plain or averaged (EMA)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from absl import logging

from deskpro_jax.errors import InputError
from deskpro_jax.weights.inert import Tensor

MAX_DEPTH = 4  # of wrappers around a state dict
# Under which names checkpoints keep their state dict, in order of preference.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights")
# Plain weights, as training moved them, or their exponential moving average.
CHOICES = ("plain", "ema")
_EMA = re.compile(r"(?:^|[^a-z])ema(?:$|[^a-z])|averaged", re.IGNORECASE)
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


def _find(tree: dict[Any, Any], source: str, weights: str | None, depth: int) -> Mapping[Any, Any]:
    known: dict[tuple[int, int], bool] = {}
    names = ", ".join(repr(name)[:40] for name in list(tree)[:8]) or "nothing"
    if {"state", "param_groups"} <= set(tree):
        raise _only_optimiser(source, names)
    inner = {name: value for name, value in tree.items() if isinstance(value, dict) and _holds_tensors(value, known)}
    averaged = [name for name in inner if isinstance(name, str) and _EMA.search(name)]
    plain = [name for name in inner if name not in averaged and name not in _OPTIMISER]
    own = _own_tensors(tree)
    wrapper = next((name for name in WRAPPERS if name in plain), None)
    if wrapper is None and not own and len(plain) == 1:
        wrapper = plain[0]
    if averaged and (weights == "ema" or (wrapper is None and not own and not plain)):
        if weights != "ema":
            logging.warning("%s holds EMA weights only (under %r): they are read.", source, averaged[0])
        wrapper, weights = averaged[0], "plain"
    elif averaged and weights is None:
        logging.warning(
            "%s holds plain and EMA weights (under %r): the plain ones are read; --weights ema takes the others.",
            source,
            averaged[0],
        )
    if wrapper is not None and depth < MAX_DEPTH:
        return _find(inner[wrapper], source, weights, depth + 1)
    if weights == "ema":
        raise InputError(f"{source} holds no EMA weights (under 'ema', 'model_ema', ...): leave out --weights ema.")
    if own:
        return tree
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
