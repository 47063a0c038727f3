"""Losses by themselves and learning rates are those of the published code, to the last digits of float64."""

from __future__ import annotations

import pytest

from golden_cases import Golden, units
from test_golden_methods import FOLDER

CASES = [
    pytest.param(golden, case, id=f"{path.stem}-{case}")
    for path in sorted(FOLDER.glob("*.npz"))
    for golden in [Golden(path)]
    for case in golden.cases
    if units.is_unit(golden, case)
]


@pytest.mark.parametrize(("golden", "case"), CASES)
def test_a_loss_or_schedule_is_the_published_one(golden: Golden, case: str) -> None:
    units.run(golden, case)
