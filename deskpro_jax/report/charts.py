"""Draws charts as SVG that stands inside an HTML page: text stays text, colours are the page's own."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deskpro_jax.errors import missing_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (3.7, 2.3)  # inches: small enough that its text stays legible on a telephone
# Stand for the page's colours while matplotlib draws, so that they follow light and dark.
_INK, _SOFT, _LINE = "#010203", "#040506", "#070809"
_SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04")
_PAGE = {_INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)"}
_PAGE |= {colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, 1)}
# Told apart without colour as well.
_STYLES: tuple[str | tuple[float, tuple[float, ...]], ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = ("o", "s", "^", "D")
_FEW = 30  # points that get markers
_STREAMS = {"both": 0, "face": 1, "body": 2}  # a stream looks the same in every chart


class Curve(NamedTuple):
    """A named series: positions [points] and values [points], with their deviations where known."""

    name: str
    positions: np.ndarray
    values: np.ndarray
    deviation: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class LineChart:
    """Curves over epochs or steps; `percent` shows percent, `from_zero` starts the values' axis there."""

    title: str
    subtitle: str
    axis: str
    curves: tuple[Curve, ...]
    percent: bool = False
    from_zero: bool = False

    @property
    def summary(self) -> str:
        """First and last value of every curve, in words."""
        scale, unit = (100.0, " %") if self.percent else (1.0, "")
        said = []
        for curve in self.curves:
            name = f"{curve.name}: " if len(self.curves) > 1 else ""
            first, last = (f"{value * scale:.3g}{unit}" for value in (curve.values[0], curve.values[-1]))
            said.append(f"{name}{last}" if len(curve.values) == 1 else f"{name}{first} to {last}")
        return "; ".join(said)


class Bars(NamedTuple):
    """A named histogram: fraction of all its pairs in each bin [bins]."""

    name: str
    shares: np.ndarray


def require_matplotlib() -> None:
    """Raises InputError where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_package("the report", "report", error) from error


def draw_lines(chart: LineChart, name: str) -> str:
    """Returns a chart of curves as an SVG element.

    Args:
        chart: what to draw.
        name: of the element on its page; no other may have it.
    """

    def draw(axes: Axes) -> None:
        scale = 100.0 if chart.percent else 1.0
        for number, curve in enumerate(chart.curves):
            look = _STREAMS.get(curve.name, number) % len(_SERIES)
            style, colour = _STYLES[look], _SERIES[look]
            values = np.where(np.isfinite(curve.values), curve.values * scale, np.nan)
            marker = _MARKERS[look] if len(values) <= _FEW else None
            axes.plot(
                curve.positions, values, color=colour, linestyle=style, marker=marker, markersize=3.5, label=curve.name
            )
            if curve.deviation is not None:
                low, high = values - scale * curve.deviation, values + scale * curve.deviation
                axes.fill_between(curve.positions, low, high, color=colour, alpha=0.15, linewidth=0)
        if chart.from_zero:
            axes.set_ylim(bottom=0)
        last = max(float(curve.positions[-1]) for curve in chart.curves)
        axes.set_xlim(0, 1.03 * last or 1)
        axes.set_xlabel(chart.axis)
        axes.set_ylabel("%" if chart.percent else "")
        axes.locator_params(nbins=5)
        for side in (axes.xaxis, axes.yaxis):
            side.set_major_formatter("{x:g}")
        if len(chart.curves) > 1:
            axes.legend()

    return _svg(draw, name, f"{chart.title} by {chart.axis}: {chart.summary}")


def draw_histogram(bars: Sequence[Bars], edges: np.ndarray, axis: str, name: str, description: str) -> str:
    """Returns histograms over one another as an SVG element.

    Args:
        bars: the histograms.
        edges: [bins + 1] of the bins.
        axis: what the edges are values of.
        name: of the element on its page; no other may have it.
        description: in words, for those who do not see it.
    """

    def draw(axes: Axes) -> None:
        for look, one in enumerate(bars):
            axes.stairs(100 * one.shares, edges, color=_SERIES[look], alpha=0.18, fill=True)
            axes.stairs(
                100 * one.shares, edges, color=_SERIES[look], linestyle=_STYLES[look], linewidth=1.5, label=one.name
            )
        axes.set_xlabel(axis)
        axes.set_ylabel("% of pairs")
        axes.locator_params(nbins=5)
        top = max((float(one.shares.max()) for one in bars), default=0.0)
        axes.set_ylim(0, 100 * top * (1.15 + 0.14 * len(bars)) or 1)  # room for the legend
        axes.legend()

    return _svg(draw, name, description)


def _svg(draw: Callable[[Axes], None], name: str, description: str) -> str:
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.size": 10,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _SOFT,
        "xtick.color": _SOFT,
        "ytick.color": _SOFT,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": _LINE,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.unicode_minus": False,
        "axes.formatter.use_mathtext": False,
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "legend.handlelength": 3.0,
        "legend.loc": "best",
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=_SIZE, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), name, description)


def _inline(text: str, name: str, description: str) -> str:
    """Makes of an SVG file an element of a page: names of its own, the page's colours and type, no namespaces."""
    body = text[text.index(">", text.index("<svg")) + 1 :]
    head = text[text.index("<svg") : len(text) - len(body)]
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\1{name}-", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*; ", "", body)
    # Only coordinates: in text it would make 0.00 of a rate of 0.004.
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), body)
    body = re.sub(r"\n\s*", "\n", body)
    for colour, page_colour in _PAGE.items():
        body = body.replace(colour, page_colour)
    label = description.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return f'<svg class="chart" {box[0]} role="img" aria-label="{label}">{body}'
