"""The similarity of embeddings counts the parts that both images have, or all of them, in streams of any sizes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.similarity import DISTANCES, MISSING_FACE, Similarity, StreamParts, equal_parts
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


WEIGHTED = Similarity(
    (
        StreamParts("face", 2, 3, may_be_missing=True),
        StreamParts("body", 3, 5, weights=(1.0, 0.5, 2.0)),
        StreamParts("gait", 1, 4, weights=(0.25,)),
    )
)


def weighted_by_loops(similarity: Similarity, one: np.ndarray, other: np.ndarray) -> float:
    """The weighted mean, or that of all parts at right angles where no part is shared."""
    total, shared, weight, apart, start = 0.0, 0.0, 0.0, 0.0, 0
    for stream in similarity.streams:
        for part in stream.weights or (1.0,) * stream.count:
            mine, theirs = (vector[start : start + stream.dim] for vector in (one, other))
            start += stream.dim
            weight += part
            square = -float(((mine - theirs) ** 2).sum())
            apart += part * square
            if similarity.missing_face == "zeros" or (mine.any() and theirs.any()):
                total += part * (float(mine @ theirs) if similarity.distance == "cosine" else square)
                shared += part
    if shared:
        return total / shared
    return 0.0 if similarity.distance == "cosine" else apart / weight


@pytest.mark.parametrize("similarity", [UNEQUAL, WEIGHTED, UNEQUAL.select(["face"])], ids=["equal", "weighted", "face"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("rule", MISSING_FACE)
def test_parts_count_by_their_weights_under_every_rule(similarity: Similarity, rule: str, distance: str) -> None:
    similarity = dataclasses.replace(similarity, missing_face=rule, distance=distance)
    query, gallery = drawn(similarity, 7, 0), drawn(similarity, 11, 1)
    if distance == "euclidean":
        query, gallery = 3.7 * query, 1.9 * gallery
    expected = np.array([[weighted_by_loops(similarity, one, other) for other in gallery] for one in query])
    np.testing.assert_allclose(similarity.between(query, gallery), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.concatenate(list(similarity.blocks(query, gallery, 3))), expected, atol=2e-6)
    distances = similarity.distances(query, gallery)
    np.testing.assert_allclose(distances, -expected if distance == "euclidean" else 2 - 2 * expected, atol=5e-6)


def test_unit_parts_have_length_one_or_are_zero() -> None:
    images = 5 * drawn(WEIGHTED, 4, 0)
    unit = WEIGHTED.unit_parts(images)
    np.testing.assert_allclose(unit, images / 5, atol=1e-12)
    assert np.isfinite(unit).all()


def test_weights_that_do_not_fit_the_parts_are_refused() -> None:
    with pytest.raises(InputError, match=r"stream body has 3 parts and weights \(1\.0, 0\.5\)"):
        StreamParts("body", 3, 5, weights=(1.0, 0.5))
    with pytest.raises(InputError, match=r"eval\.distance is 'manhattan'; expected one of cosine, euclidean"):
        dataclasses.replace(UNEQUAL, distance="manhattan")
