"""Curves of a training phase from its metrics: every loss term, every score, the learning rate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deskpro_jax.report.charts import Curve, LineChart

_COLUMNS = ("step", "epoch", "time")
_RATE, _TOTAL = "learning_rate", "total"
_POINTS = 240  # of a curve, at most: more points than that are averaged, so that a page of any run stays small
_LEADING = ("mAP", "R-1")  # figures whose charts come first
_STD = "_std"
NORMS = {
    "gradient_norm": "L2 norm of the gradient of the total loss, over all parameters",
    "parameter_norm": "L2 norm of all parameters",
    "update_norm": "L2 norm of what a step adds to the parameters",
}
TERMS = {
    "total": "total loss, Eq. 7",
    "attention": "L_att, mask-guided attention, Eq. 4",
    "kd": "L_fkp, facial knowledge propagation, Eq. 5",
    "ce_face": "cross-entropy, face stream, Eq. 6",
    "ce_body": "cross-entropy, body stream, Eq. 6",
    "triplet_face": "triplet, face stream",
    "triplet_body": "triplet, body stream",
}


class Metrics(NamedTuple):
    """The lines of `metrics.jsonl`.

    Attributes:
        lines: those that can be read.
        broken: how many cannot: a killed run may leave one, cut short.
        axis: what positions are counted in, "epoch", or "step" where lines have no epoch.
    """

    lines: list[dict[str, Any]]
    broken: int
    axis: str

    @property
    def last_epoch(self) -> float | None:
        """The epochs done, None where no line has them."""
        epochs = [float(line["epoch"]) for line in self.lines if line.get("epoch") is not None]
        return max(epochs, default=None)


class PhaseCharts(NamedTuple):
    """The charts of a phase."""

    losses: list[LineChart]
    scores: list[LineChart]  # mAP and R-1
    more_scores: list[LineChart]
    rate: list[LineChart]
    norms: list[LineChart]


def read_metrics(path: Path) -> Metrics | None:
    """Reads the metrics of a phase, None where it has none.

    Args:
        path: its `metrics.jsonl`.
    """
    if not path.is_file():
        return None
    lines, broken = [], 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
                float(line["step"])
                lines.append(line)
            except (ValueError, TypeError, KeyError):
                broken += 1
    whole = all(line.get("epoch") is not None for line in lines)
    return Metrics(lines, broken, "epoch" if whole else "step")


def phase_charts(metrics: Metrics) -> PhaseCharts:
    """Returns the charts of a phase.

    Args:
        metrics: of the phase.
    """
    series = _series(metrics)
    trained = {name for line in metrics.lines if _TOTAL in line for name in line}
    terms = [name for name in series if name in trained and name != _RATE and name not in NORMS]
    terms.sort(key=lambda name: list(TERMS).index(name) if name in TERMS else len(TERMS))
    losses = [LineChart(name, TERMS.get(name, ""), metrics.axis, (series[name],)) for name in terms]
    scores = _scores(series, metrics.axis)
    leading = [chart for chart in scores if chart.title.rpartition(", ")[2] in _LEADING]
    rate = [LineChart("learning rate", "", metrics.axis, (series[_RATE],), from_zero=True)] if _RATE in series else []
    norms = [
        LineChart(name.replace("_", " "), text, metrics.axis, (series[name],), from_zero=True)
        for name, text in NORMS.items()
        if name in series
    ]
    return PhaseCharts(losses, leading, [chart for chart in scores if chart not in leading], rate, norms)


def _series(metrics: Metrics) -> dict[str, Curve]:
    """Returns every value over the epochs (or steps), by name."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in metrics.lines:
        for name, value in line.items():
            if name not in _COLUMNS and (number := _number(value)) is not None:
                points.setdefault(name, []).append((float(line[metrics.axis]), number))
    return {name: _thinned(name, np.array(found)) for name, found in points.items()}


def _number(value: Any) -> float | None:
    try:
        return float(value)  # also "nan" and "inf", as the writer writes them
    except (TypeError, ValueError):
        return None


def _thinned(name: str, points: np.ndarray) -> Curve:
    groups = np.array_split(points, min(_POINTS, len(points)))
    means = np.array([group.mean(0) for group in groups])
    return Curve(name, means[:, 0], means[:, 1])


def _scores(series: Mapping[str, Curve], axis: str) -> list[LineChart]:
    """Returns a chart for each protocol and figure, with a curve a stream, deviations over draws around it."""
    charts: dict[tuple[str, str], list[Curve]] = {}
    for name, curve in series.items():
        # The short names (mAP, face_mAP, ...) repeat the first protocol's.
        protocol, _, rest = name.partition("/")
        stream, _, figure = rest.rpartition("/")
        if not stream or figure.endswith(_STD):
            continue
        around = series.get(name + _STD)
        deviation = around.values if around is not None and len(around.values) == len(curve.values) else None
        charts.setdefault((protocol, figure), []).append(curve._replace(name=stream, deviation=deviation))
    drawn = [
        LineChart(f"{protocol}, {figure}", "", axis, tuple(curves), percent=True, from_zero=True)
        for (protocol, figure), curves in charts.items()
    ]
    return drawn or _short_scores(series, axis)


def _short_scores(series: Mapping[str, Curve], axis: str) -> list[LineChart]:
    names: Iterable[str] = (name for name in series if name == "mAP" or name.endswith("_mAP"))
    curves = tuple(series[name]._replace(name=name.removesuffix("_mAP")) for name in names)
    return [LineChart("mAP", "", axis, curves, percent=True, from_zero=True)] if curves else []
