"""Draws the main figure of each benchmark: bars with the range of the samples."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from benchmarks.results import METRICS, Measurement, Report
from deskpro_jax.errors import InputError
from deskpro_jax.storage.files import atomic_path

SUFFIXES = (".png", ".svg", ".pdf")
_MAIN = ("rate", "time", "size")  # the first of them that a case has


def check(path: Path) -> None:
    """Raises InputError where `path` has no ending that can be drawn, or matplotlib is not installed."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--plot is {path}; expected a name that ends in {', '.join(SUFFIXES)}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plot needs matplotlib: pip install deskpro_jax[bench], or leave the flag out.")


def draw(report: Report, path: Path) -> None:
    """Writes the plot, whole or not at all.

    Args:
        report: with at least one measurement.
        path: whose ending says the format.
    """
    from matplotlib.figure import Figure

    panels = _panels(report)
    rows = [len(measured) for _, _, measured in panels]
    figure = Figure(figsize=(8, 0.6 * len(panels) + 0.3 * sum(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[count + 2 for count in rows])[:, 0]
    entrants = list(dict.fromkeys(m.entrant for _, _, measured in panels for m in measured))
    for axis, (name, metric, measured) in zip(axes, panels, strict=True):
        medians = [m.median for m in measured]
        spread = np.abs(np.array([m.range for m in measured]).T - medians)
        axis.barh(
            range(len(measured)),
            medians,
            xerr=spread,
            capsize=2,
            color=[f"C{entrants.index(m.entrant)}" for m in measured],
        )
        axis.set_yticks(range(len(measured)), [f"{m.case}, {m.entrant}" for m in measured], fontsize=7)
        axis.invert_yaxis()
        axis.set_title(f"{name}: {metric}, {METRICS[metric].unit}", fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:] or None)


def _panels(report: Report) -> list[tuple[str, str, list[Measurement]]]:
    """Returns benchmark, metric and what was measured of it."""
    found = []
    for name in dict.fromkeys(m.benchmark for m in report.measurements):
        mine = [m for m in report.measurements if m.benchmark == name]
        metrics = [metric for metric in _MAIN if any(m.metric == metric for m in mine)] or [mine[0].metric]
        found.append((name, metrics[0], [m for m in mine if m.metric == metrics[0]]))
    return found
