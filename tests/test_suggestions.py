"""Misspelt names are answered with the closest known ones, by one function."""

from __future__ import annotations

import runs
from deskpro_jax.config.suggestions import did_you_mean


def test_the_closest_names_are_asked_for_the_closest_first() -> None:
    assert did_you_mean("celeb_lihgt", ["prcc", "celeb", "celeb_light"]) == "did you mean celeb_light or celeb?"
    assert did_you_mean("xyz", ["prcc", "celeb"]) == ""
    assert did_you_mean("", iter(["prcc"])) == ""


def test_no_other_module_compares_spellings_itself() -> None:
    rooms = ("deskpro_jax", "data_prep", "benchmarks", "configs")
    using = [p.name for room in rooms for p in (runs.ROOT / room).rglob("*.py") if "difflib" in p.read_text("utf-8")]
    assert using == ["suggestions.py"]
