"""A page: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deskpro_jax.errors import missing_package

_SIZE = "@size of this page@"


def render(contents: Mapping[str, Any], template: str = "report.html") -> str:
    """Returns the page.

    Args:
        contents: what the template shows: of a run, see `contents.gather`.
        template: a file of `templates`.

    Raises:
        InputError: jinja2 is not installed.
    """
    require_jinja()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deskpro_jax.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template(template).render(**contents, size=_SIZE)
    return text.replace(_SIZE, f"{len(text.encode()) / 1e6:.1f} MB")


def require_jinja() -> None:
    """Raises InputError where jinja2 is not installed."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise missing_package("the report", "report", error) from error
