"""The similarity of embeddings counts the parts that both images have, or all of them, in streams of any sizes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.similarity import MISSING_FACE, Similarity, StreamParts, equal_parts
from gallery import SIMILARITY

UNEQUAL = Similarity(
    (StreamParts("face", 2, 3, may_be_missing=True), StreamParts("body", 3, 5), StreamParts("gait", 1, 4))
)


def drawn(similarity: Similarity, count: int, seed: int) -> np.ndarray:
    """Parts of unit length, the first stream missing in every third image."""
    random = np.random.default_rng(seed)
    columns = []
    for stream in similarity.streams:
        parts = random.normal(size=(count, stream.count, stream.dim))
        columns.append((parts / np.linalg.norm(parts, axis=2, keepdims=True)).reshape(count, -1))
    columns[0][::3] = 0
    return np.concatenate(columns, axis=1)


def by_loops(similarity: Similarity, one: np.ndarray, other: np.ndarray) -> float:
    total, shared, parts, start = 0.0, 0, 0, 0
    for stream in similarity.streams:
        for _ in range(stream.count):
            mine, theirs = (vector[start : start + stream.dim] for vector in (one, other))
            start += stream.dim
            parts += 1
            if mine.any() and theirs.any():
                total += float(mine @ theirs)
                shared += 1
    return total / (parts if similarity.missing_face == "zeros" else shared)


@pytest.mark.parametrize("rule", MISSING_FACE)
def test_streams_of_unequal_sizes_are_compared_part_by_part(rule: str) -> None:
    similarity = dataclasses.replace(UNEQUAL, missing_face=rule)
    query, gallery = drawn(similarity, 7, 0), drawn(similarity, 11, 1)
    expected = np.array([[by_loops(similarity, one, other) for other in gallery] for one in query])
    np.testing.assert_allclose(similarity.between(query, gallery), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.concatenate(list(similarity.blocks(query, gallery, 3))), expected, atol=1e-12)
    np.testing.assert_allclose(similarity.distances(query, gallery), 2 - 2 * expected, atol=1e-12)
    assert (similarity.parts, similarity.total_dim) == (6, 25)
    assert similarity.present_streams(query)[:, 0].tolist() == [i % 3 != 0 for i in range(7)]
    np.testing.assert_array_equal(similarity.present(query).sum(axis=1), np.where(np.arange(7) % 3, 6, 4))


def test_each_stream_is_a_view_and_so_are_all_together() -> None:
    views = UNEQUAL.views()
    assert {name: (columns.start, columns.stop, one.parts) for name, (columns, one) in views.items()} == {
        "face": (0, 6, 2),
        "body": (6, 21, 3),
        "gait": (21, 25, 1),
        "both": (None, None, 6),
    }
    assert list(UNEQUAL.select(["gait"]).views()) == ["gait"]


def test_what_two_images_were_compared_by_is_named() -> None:
    assert SIMILARITY.compared(14) == "face and body"
    assert SIMILARITY.compared(7) == "body"
    assert SIMILARITY.select(["face"]).compared(7) == "face"
    assert UNEQUAL.compared(4) == "body and gait"


@pytest.mark.parametrize("rule", MISSING_FACE)
def test_distances_are_those_of_unit_vectors(rule: str) -> None:
    similarity = dataclasses.replace(SIMILARITY, missing_face=rule)
    images = drawn(similarity, 9, 3).astype(np.float32)
    distances = similarity.distances(np.concatenate([images, -images]), images)
    assert distances.min() >= 0
    assert distances.max() <= 4 + 1e-5
    complete = np.flatnonzero(similarity.present(images).all(axis=1))
    np.testing.assert_allclose(distances[complete, complete], 0, atol=1e-5)
    np.testing.assert_allclose(distances[9 + complete, complete], 4, atol=1e-5)


def test_unknown_rules_and_parts_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match=r"eval\.missing_face is 'face'; expected one of body, zeros"):
        equal_parts(14, {"body": 7}, missing_face="face")
    with pytest.raises(InputError, match="embeddings of length 15 with 7 parts"):
        equal_parts(15, {"body": 7})
