"""What the published code of other methods computes is what this package computes.

Files come from tests/golden/methods, or from the folder `methods` in the one that DESKPRO_GOLDEN names. Each method has
a module of its own in `golden_cases` with `run(golden, case)`, and `HEAVY`, the beginnings of the names of cases
that only .ci/run takes; it alone takes a method's further cases of embeddings.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from golden_cases import Golden, units

_OWN = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("DESKPRO_GOLDEN") or _OWN) / "methods"


def _parameters() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.npz")):
        if not (Path(__file__).parent / "golden_cases" / f"{path.stem}.py").exists():
            continue
        heavy = importlib.import_module(f"golden_cases.{path.stem}").HEAVY
        golden = Golden(path)
        cases = [case for case in golden.cases if not units.is_unit(golden, case)]  # of tests/test_golden_units.py
        further = [case for case in cases if case.startswith("eval")][1:]  # the network of the first once more
        for case in cases:
            skip = pytest.mark.skipif(
                (case in further or case.startswith(tuple(heavy))) and os.environ.get("DESKPRO_TEST_OPTIMISED") != "1",
                reason="whole networks take minutes to compile: .ci/run takes them, with DESKPRO_TEST_OPTIMISED=1",
            )
            yield pytest.param(golden, case, id=f"{path.stem}-{case}", marks=skip)


@pytest.mark.slow
@pytest.mark.parametrize(("golden", "case"), list(_parameters()))
def test_published_code_computes_the_same(golden: Golden, case: str) -> None:
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        importlib.import_module(f"golden_cases.{golden.path.stem}").run(golden, case)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
