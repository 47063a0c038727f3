"""Results as a Markdown table and as one for the terminal."""

from __future__ import annotations

import io
import math

import rich.console

from deskpro_jax.evaluation.results_table import ResultRow, results_markdown, results_table

ROWS = [
    ResultRow("cross-clothes", "both", 0.51234, {"R-1": 0.6, "R-5": 0.75, "R-10": 0.8, "R-20": 1.0}, 40, 2),
    ResultRow("general", "face", math.nan, {}, 0, 42),
    ResultRow("single-shot", "body", 0.5, {"R-1": 0.25}, 7, 0, {"mAP": 0.012, "R-1": 0.0}),
]


def test_results_as_markdown():
    assert results_markdown(ROWS).splitlines() == [
        "| protocol | stream | mAP | R-1 | R-5 | R-10 | R-20 | counted | dropped |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| cross-clothes | both | 51.2 | 60.0 | 75.0 | 80.0 | 100.0 | 40 | 2 |",
        "| general | face | - | - | - | - | - | 0 | 42 |",
        "| single-shot | body | 50.0 ± 1.2 | 25.0 ± 0.0 | - | - | - | 7 | 0 |",
    ]


def test_results_on_the_terminal():
    console = rich.console.Console(file=io.StringIO(), force_terminal=False, width=120, color_system=None)
    console.print(results_table(ROWS, title="synthetic_small"))
    shown = console.file.getvalue()
    assert "synthetic_small" in shown
    row = next(line for line in shown.splitlines() if "cross-clothes" in line)
    assert row.replace("│", " ").split() == [
        "cross-clothes",
        "both",
        "51.2",
        "60.0",
        "75.0",
        "80.0",
        "100.0",
        "40",
        "2",
    ]


def test_the_column_of_the_map_says_how_it_is_integrated() -> None:
    row = ResultRow("first_digit", "body", 0.1, {"R-1": 0.5}, 4, 0, average_precision="trapezoid")
    assert "| protocol | stream | mAP (trapezoid) | R-1 |" in results_markdown([row])
    assert "| mAP |" in results_markdown([row._replace(average_precision="step")])
    assert [column.header for column in results_table([row]).columns][2] == "mAP (trapezoid)"
