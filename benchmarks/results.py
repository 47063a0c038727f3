"""What was measured: metrics with their units, median and spread, ratios, and the file that keeps them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.storage.files import require_json

FORMAT = 1
_MACHINE = ("date", "processor", "cores", "memory_bytes", "accelerators", "python", "versions", "load")


@dataclass(frozen=True)
class Metric:
    """A kind of figure: its unit ("B" and "s" are shown with a prefix) and whether more of it is better."""

    unit: str
    more_is_better: bool


METRICS = {
    "rate": Metric("images/s", True),
    "latency": Metric("s", False),  # median of the calls of a round
    "latency, 95th percentile": Metric("s", False),
    "time": Metric("s", False),
    "compile": Metric("s", False),  # tracing, lowering and compiling, or reading what was compiled before
    "start": Metric("s", False),  # from the start of the process until the first step is done
    "until returned": Metric("s", False),  # what training waits for; the rest is done beside it
    "restore": Metric("s", False),
    "peak memory": Metric("B", False),  # resident size of the process
    "working memory": Metric("B", False),  # what the work adds to inputs that are in place
    "temporary memory": Metric("B", False),  # of the compiled program, by the compiler's analysis
    "program memory": Metric("B", False),  # the same with arguments and results
    "device memory": Metric("B", False),  # peak on the accelerator
    "size": Metric("B", False),
    "operations": Metric("FLOP", False),
    "speed": Metric("FLOP/s", True),
    "machine's peak": Metric("FLOP/s", True),  # of a large matrix product in the same process
    "share of peak": Metric("%", True),
    "loss": Metric("", False),
    "parameters": Metric("", False),  # numbers that are trained
    "mAP": Metric("", True),
    "largest difference": Metric("", False),  # from our outputs, as a share of the largest
}


@dataclass(frozen=True)
class Measurement:
    """All samples of one metric; one sample is something that happens once, and has no spread."""

    benchmark: str
    case: str
    entrant: str
    metric: str
    samples: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from the others, and finds it in another file."""
        return self.benchmark, self.case, self.entrant, self.metric

    @property
    def median(self) -> float:
        return float(np.median(self.samples))

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.percentile(self.samples, (25, 75))
        return float(low), float(high)

    @property
    def range(self) -> tuple[float, float]:
        return min(self.samples), max(self.samples)


@dataclass(frozen=True)
class Ratio:
    """Ours over another entrant's, round by round: both met the same load."""

    benchmark: str
    case: str
    metric: str
    over: str
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """A file of results.

    Attributes:
        machine: see `machine.describe`.
        settings: of the command.
        measurements: what succeeded.
        ratios: ours over others'.
        failures: "benchmark, case" -> why there is nothing of it.
        notes: what else a reader should know.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...]
    failures: dict[str, str]
    notes: tuple[str, ...] = ()


def ratios(measurements: Iterable[Measurement], ours: str) -> tuple[Ratio, ...]:
    """Returns ours over each other entrant's, of what both have as many samples of.

    Args:
        measurements: of any benchmarks.
        ours: name of our entrant.
    """
    given = list(measurements)
    mine = {(m.benchmark, m.case, m.metric): m.samples for m in given if m.entrant == ours}
    found = []
    for m in given:
        samples = mine.get((m.benchmark, m.case, m.metric), ())
        if m.entrant == ours or len(samples) != len(m.samples) or not all(m.samples):
            continue
        if METRICS[m.metric].unit:
            quotients = tuple(a / b for a, b in zip(samples, m.samples, strict=True))
            found.append(Ratio(m.benchmark, m.case, m.metric, m.entrant, quotients))
    return tuple(found)


def to_json(report: Report) -> dict[str, Any]:
    """Returns a report as JSON values: every sample, and median, quartiles and range of them."""
    return {
        "format": FORMAT,
        "machine": report.machine,
        "settings": report.settings,
        "measurements": [
            {
                **dataclasses.asdict(m),
                "samples": list(m.samples),
                "unit": METRICS[m.metric].unit,
                "more_is_better": METRICS[m.metric].more_is_better,
                "median": m.median,
                "quartiles": list(m.quartiles),
                "range": list(m.range),
            }
            for m in report.measurements
        ],
        "ratios": [
            {**dataclasses.asdict(r), "samples": list(r.samples), "median": float(np.median(r.samples))}
            for r in report.ratios
        ],
        "failures": report.failures,
        "notes": list(report.notes),
    }


def read(path: Path) -> Report:
    """Reads a file that `benchmarks.run --out` wrote.

    Raises:
        MissingInputError: there is no such file.
        InputError: it is something else.
    """
    if not path.is_file():
        raise MissingInputError(f"no file {path}: give what `python -m benchmarks.run --out` wrote.")
    try:
        found = require_json(path, "measure it again")
        if found["format"] != FORMAT:
            raise InputError(f"{path} has format {found['format']}, expected {FORMAT}: measure it again.")
        for part, names in (("machine", _MACHINE), ("settings", ("threads", "quick"))):
            if absent := [name for name in names if name not in found[part]]:
                raise ValueError(f"{part} lacks {', '.join(absent)}")
        return Report(
            dict(found["machine"]),
            dict(found["settings"]),
            tuple(
                Measurement(m["benchmark"], m["case"], m["entrant"], m["metric"], _numbers(m))
                for m in found["measurements"]
            ),
            tuple(Ratio(r["benchmark"], r["case"], r["metric"], r["over"], _numbers(r)) for r in found["ratios"]),
            dict(found["failures"]),
            tuple(found["notes"]),
        )
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no file of results ({type(error).__name__}: {error}): expected what "
            "`python -m benchmarks.run --out` writes."
        ) from error


def _numbers(entry: dict[str, Any]) -> tuple[float, ...]:
    if entry.get("metric") not in METRICS:
        raise ValueError(f"unknown metric {entry.get('metric')!r}")
    samples = tuple(float(value) for value in entry["samples"])
    if not samples or not all(math.isfinite(value) for value in samples):
        raise ValueError("samples are missing or not finite")
    return samples
