"""Checks of single fields of a configuration: type, range, choices. Each room checks the fields that it reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.errors import InputError


def read(config: ml_collections.ConfigDict, name: str) -> Any:
    """Returns the value of a field.

    Args:
        config: the whole configuration.
        name: of the field, dotted: "train.epochs".

    Raises:
        InputError: the configuration has no such field.
    """
    value: Any = config
    for part in name.split("."):
        if not isinstance(value, (Mapping, ml_collections.ConfigDict)) or part not in value:
            raise InputError(f"the configuration has no field {name}: start it from base.get_config().")
        value = value[part]
    return value


def boolean(config: ml_collections.ConfigDict, name: str) -> bool:
    """Returns a field that must be True or False."""
    value = read(config, name)
    if not isinstance(value, bool):
        raise _refusal(name, value, "True or False")
    return value


def integer(config: ml_collections.ConfigDict, name: str, *, least: int, most: int | None = None) -> int:
    """Returns a field that must be an integer within a range."""
    value = read(config, name)
    if not _is_integer(value) or value < least or (most is not None and value > most):
        raise _refusal(name, value, f"an integer {_range(least, most)}")
    return int(value)


def number(
    config: ml_collections.ConfigDict,
    name: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
) -> float:
    """Returns a field that must be a finite number: at least `least` or greater than `above`, at most `most`."""
    value = read(config, name)
    if not _is_number(value, least, most) or (above is not None and value <= above):
        limits = _range(least, most) if above is None else f"> {above:g}" + ("" if most is None else f" and <= {most}")
        raise _refusal(name, value, f"a number {limits}")
    return float(value)


def interval(config: ml_collections.ConfigDict, name: str, *, least: float, most: float) -> tuple[float, float]:
    """Returns a field that must be a pair of numbers in ascending order within a range."""
    low, high = numbers_of(config, name, 2, least=least, most=most)
    if low > high:
        raise _refusal(name, read(config, name), "two numbers in ascending order")
    return low, high


def numbers_of(
    config: ml_collections.ConfigDict, name: str, count: int, *, least: float, most: float
) -> tuple[float, ...]:
    """Returns a field that must be a sequence of `count` numbers within a range."""
    value = read(config, name)
    right = isinstance(value, (tuple, list)) and len(value) == count and all(_is_number(v, least, most) for v in value)
    if not right:
        raise _refusal(name, value, f"{count} numbers, each {_range(least, most)}")
    return tuple(float(v) for v in value)


def integers(config: ml_collections.ConfigDict, name: str) -> tuple[int, ...]:
    """Returns a field that must be a sequence of integers, possibly an empty one."""
    value = read(config, name)
    if not isinstance(value, (tuple, list)) or not all(_is_integer(v) for v in value):
        raise _refusal(name, value, "a sequence of integers, e.g. (-1, 0)")
    return tuple(value)


def size(config: ml_collections.ConfigDict, name: str) -> tuple[int, int]:
    """Returns a field that must be a height and a width in pixels."""
    value = read(config, name)
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    if not pair or not all(_is_integer(v) and v >= 1 for v in value):
        raise _refusal(name, value, "a height and a width in pixels, e.g. (384, 128)")
    return int(value[0]), int(value[1])


def text(config: ml_collections.ConfigDict, name: str, *, empty: bool = True) -> str:
    """Returns a field that must be text; without `empty`, text that is not blank."""
    value = read(config, name)
    if not isinstance(value, str) or (not empty and not value.strip()):
        raise _refusal(name, value, "text" if empty else "text that is not empty")
    return value


def texts(config: ml_collections.ConfigDict, name: str) -> tuple[str, ...]:
    """Returns a field that must be a sequence of texts, none of them blank."""
    value = read(config, name)
    if not isinstance(value, (tuple, list)) or not all(isinstance(v, str) and v.strip() for v in value):
        raise _refusal(name, value, "a sequence of texts that are not empty, e.g. ('a', 'b')")
    return tuple(value)


def choice(config: ml_collections.ConfigDict, name: str, choices: Sequence[str]) -> str:
    """Returns a field that must be one of some names."""
    return one_of(name, read(config, name), choices)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """Returns the value of a field that must be one of some names."""
    if not isinstance(value, str) or value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(choices)}{f'; {hint}' if hint else '.'}")
    return value


def _refusal(name: str, value: Any, expected: str) -> InputError:
    return InputError(f"{name} is {value!r}; it must be {expected}.")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any, least: float | None, most: float | None) -> bool:
    if not (_is_integer(value) or isinstance(value, float)) or not math.isfinite(value):
        return False
    return (least is None or value >= least) and (most is None or value <= most)


def _range(least: float | None, most: float | None) -> str:
    limits = [f">= {least:g}"] if least is not None else []
    limits += [f"<= {most}" if isinstance(most, int) else f"<= {most:g}"] if most is not None else []
    return " and ".join(limits)
