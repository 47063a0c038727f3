"""Writes figures for people: three digits, the unit with a prefix that fits, median with quartiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL = ("", "k", "M", "G", "T", "P")


def shown(samples: Sequence[float], unit: str) -> str:
    """Returns the median, with the quartiles in brackets where there are several samples: "12.3 (11.9-12.5) ms".

    Args:
        samples: at least one.
        unit: as in `results.METRICS`.
    """
    median = float(np.median(samples))
    factor, name = _prefix(abs(median), unit)
    text = _digits(median / factor)
    if len(samples) > 1:
        low, high = np.percentile(samples, (25, 75))
        text += f" ({_digits(float(low) / factor)}-{_digits(float(high) / factor)})"
    return f"{text} {name}".rstrip()


def _prefix(size: float, unit: str) -> tuple[float, str]:
    """Returns what to divide by, and the unit with its prefix."""
    if unit == "s" and 0 < size < 0.1:
        return (1e-3, "ms") if size >= 1e-4 else (1e-6, "µs")
    if unit == "B":
        power = min(_power(size, 1024), len(_BYTES) - 1)
        return 1024.0**power, _BYTES[power]
    if unit.startswith("FLOP"):
        power = min(_power(size, 1000), len(_DECIMAL) - 1)
        return 1000.0**power, _DECIMAL[power] + unit
    return 1.0, unit


def _power(size: float, base: int) -> int:
    return max(0, math.floor(math.log(size, base))) if size > 0 else 0


def _digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
