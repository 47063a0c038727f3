"""Classes of identities and of outfits; released classifiers count identities as text, and the way back is exact."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from deskpro_jax.data.load.classes import text_positions
from deskpro_jax.data.load.dataset import clothes_classes, clothes_indices


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


def outfits(identity: list[int], clothes: list[int]) -> Any:
    return SimpleNamespace(identity=np.array(identity), clothes=np.array(clothes))


def test_an_outfit_is_a_class_of_one_identity() -> None:
    split = outfits([9, 3, 3, 9, 3, 5, 9], [1, 1, 0, 1, -1, -1, 40])
    classes = clothes_classes(split)
    assert classes.tolist() == [[3, 0], [3, 1], [9, 1], [9, 40]]
    indices, ends = clothes_indices(split.identity, split.clothes, classes)
    assert indices.tolist() == [2, 1, 0, 2, -1, -1, 3]
    assert ends.tolist() == [[2, 4], [0, 2], [0, 2], [2, 4], [0, 2], [2, 2], [2, 4]]
    assert indices.dtype == ends.dtype == np.int32


def test_without_outfits_there_are_no_clothes_classes() -> None:
    split = outfits([9, 3], [-1, -1])
    classes = clothes_classes(split)
    assert classes.shape == (0, 2)
    indices, ends = clothes_indices(split.identity, split.clothes, classes)
    assert indices.tolist() == [-1, -1]
    assert ends.tolist() == [[0, 0], [0, 0]]
