"""The page of a comparison of methods: scores, sizes and speeds, recipes, published figures."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from deskpro_jax import __version__
from deskpro_jax.report.page import render
from deskpro_jax.tables.comparison import Comparison
from deskpro_jax.tables.comparison_text import cost_columns, recipe_columns, remarks, score_columns
from deskpro_jax.tables.quoted_table import quoted_columns

_FIGURES = ("mAP", "R-1", "R-5", "million", "image", "images/s")  # ends of the heads of columns of numbers


def render_comparison(comparison: Comparison) -> str:
    """Returns the page.

    Raises:
        InputError: jinja2 is not installed.
    """
    published = comparison.published
    quoted = None if published is None else _table(*quoted_columns(published))
    contents = {
        "title": comparison.title,
        "facts": {
            "dataset": comparison.dataset,
            "methods": str(len(comparison.lines)),
            "seeds": str(comparison.seeds),
            "finished runs": str(sum(line.seeds for line in comparison.lines)),
        },
        "problems": [f"{line.row.label}: {line.problem}" for line in comparison.lines if line.problem],
        "scores": _table(*score_columns(comparison)),
        "remarks": remarks(comparison),
        "costs": _table(*cost_columns(comparison)),
        "recipes": _table(*recipe_columns(comparison)),
        "same": comparison.same,
        "published": published,
        "quoted": quoted,
        "version": __version__,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
    }
    return render(contents, "comparison.html")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Returns a table for the template: heads and cells, each with whether it is a number."""
    kinds = ["number" if head.endswith(_FIGURES) else "text" for head in heads]
    return {"heads": list(zip(heads, kinds, strict=True)), "rows": [list(zip(r, kinds, strict=True)) for r in rows]}
