"""The configuration of a run beside the defaults, and the versions and checksums that go with its results."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any, NamedTuple

import deskpro_jax
from deskpro_jax.config import fields as fields_
from deskpro_jax.configs import base

_MISSING = object()


class Field(NamedTuple):
    """A field: its value, the default in `configs/base.py`, and whether they differ."""

    name: str
    value: str
    default: str
    differs: bool


def fields(config: Mapping[str, Any]) -> dict[str, list[Field]]:
    """Returns the fields of a configuration by group; those without a group are under "".

    Args:
        config: content of `config.json`.
    """
    own, defaults = fields_.flatten(config), fields_.flatten(base.get_config())
    groups: dict[str, list[Field]] = {}
    for name, value in own.items():
        default = defaults.get(name, _MISSING)
        group, _, field = name.rpartition(".")
        shown = "not a field of this version" if default is _MISSING else text(default)
        groups.setdefault(group, []).append(Field(field, text(value), shown, value != default))
    return dict(sorted(groups.items()))


def versions(record: Mapping[str, Any] | None) -> dict[str, str]:
    """Returns the versions in a results file, or those of this installation where there is none."""
    if record is not None and isinstance(record.get("versions"), Mapping):
        return {str(name): str(version) for name, version in record["versions"].items()}
    here = {"deskpro_jax": deskpro_jax.__version__, "python": platform.python_version()}
    return here | {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}


def text(value: Any) -> str:
    """Returns a JSON value as it is shown: words as they are, all else as JSON."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
