"""Fields of a configuration by dotted name: how two configurations differ, which fields may change in a workdir."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

# Fields that may differ when a run continues: they do not change what is computed for a step.
FREE = ("data.data_dir", "data.raw_dir", "data.parts_dir", "data.mask_kind", "data.allow_different_size",
        "data.workers", "eval.", "checkpoint.", "mesh.", "train.log_every", "train.profile_steps", "train.remat",
        "train.depthwise", "compilation_cache")  # fmt: skip


# Fields that decide what a trained network computes for an image; which of the streams are used is free.
NETWORK = ("model.", "data.body_size", "data.face_size", "data.interpolation", "teacher.method", "teacher.options")


STREAMS = ("model.body", "model.face")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the fields of a configuration by dotted name, tuples as lists."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, (Mapping, ml_collections.ConfigDict)):
            fields |= flatten(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = list(value) if isinstance(value, tuple) else value
    return fields


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], counts: Callable[[str], bool] = lambda name: True
) -> str:
    """Returns the settings that differ, one per line with both values; "" if there are none.

    Args:
        before: the settings that something was started with.
        now: the present settings.
        counts: whether a setting matters, by its name.
    """
    names = [n for n in sorted({*before, *now}) if before.get(n) != now.get(n) and counts(n)]
    return "".join(f"\n  {n}: {before.get(n)!r} there, {now.get(n)!r} now" for n in names)


def network_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a configuration that decide what a network computes, by dotted name."""
    return {name: value for name, value in flatten(fields).items() if name.startswith(NETWORK)}
