"""Released classifiers count identities as text; where that differs from their numbers, the way back is exact."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from deskpro_jax.data.load.classes import text_positions


def split(*image_ids: str) -> Any:
    return SimpleNamespace(image_id=list(image_ids), identity=np.array([int(name.split("_")[0]) for name in image_ids]))


def test_ten_comes_before_nine_as_text() -> None:
    found = text_positions(split("9_c1_0", "10_c1_0", "2_c1_0", "10_c2_4", "100_c1_1"))
    # As numbers 2, 9, 10, 100; as text "10", "100", "2", "9".
    assert found is not None
    assert found.tolist() == [2, 3, 0, 1]


def test_padded_names_have_one_order() -> None:
    found = text_positions(split("0009_c1_0", "0010_c1_0", "0002_c1_0"))
    assert found is not None
    assert found.tolist() == [0, 1, 2]


def test_names_that_do_not_begin_with_the_identity_have_no_such_order() -> None:
    shared = SimpleNamespace(image_id=["7_a", "7_b"], identity=np.array([1, 2]))
    assert text_positions(shared) is None  # type: ignore[arg-type]
    words = SimpleNamespace(image_id=["ann_a", "bob_b"], identity=np.array([1, 2]))
    assert text_positions(words) is None  # type: ignore[arg-type]
