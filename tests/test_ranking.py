"""Retrieval scores: golden figures, a straight-loop reference on small random cases, ties, rules and errors."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.matching_rules import RULES
from deskpro_jax.evaluation.ranking import Labels, score, score_from_distances, similarity
from gallery import parts_of

FOLDER = pathlib.Path(os.environ.get("DESKPRO_GOLDEN") or pathlib.Path(__file__).parent / "golden")
GOLDEN = FOLDER / "retrieval.npz"  # a folder of other cases may hold any subset of the files
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f"{FOLDER} has no retrieval case")


def golden_case():
    case = dict(np.load(GOLDEN))
    meta = json.loads(str(case["meta"]))
    labels = [
        Labels(case[f"{split}_ids"], case[f"{split}_cameras"], case[f"{split}_clothes"])
        for split in ("query", "gallery")
    ]
    return case, meta, labels


@needs_golden
@pytest.mark.parametrize(
    ("figures", "rule"), [("market", "general"), ("general", "general"), ("cc", "cc"), ("sc", "sc")]
)
def test_golden_figures(figures, rule):
    case, meta, (query, gallery) = golden_case()
    features = case["query_features"], case["gallery_features"]
    by_distance = score_from_distances(1 - features[0] @ features[1].T, query, gallery, rule, max_rank=meta["max_rank"])
    by_blocks = score(
        *features, query, gallery, rule, similarity=parts_of(features[0], 1), max_rank=meta["max_rank"], block=7
    )
    for scores in (by_distance, by_blocks):
        assert scores.map == pytest.approx(float(case[f"{figures}_map"]), abs=1e-6)
        np.testing.assert_allclose(scores.cmc, case[f"{figures}_cmc"], rtol=0, atol=1e-6)


def junk_by_rule(query, gallery):
    """Whether gallery images of a query's person are junk, [images] by rule."""
    camera, clothes, tracklet, scale, location = (
        getattr(gallery, name) == getattr(query, name)
        for name in ("camera", "clothes", "tracklet", "scale", "location")
    )
    return {
        "none": False & camera,
        "general": camera,
        "cc": camera | clothes,
        "sc": camera | ~clothes,
        "tracklet": tracklet,
        "other_location": camera | location,
        "same_location": camera | ~location,
        "other_scale": camera | scale,
        "same_scale": camera | ~scale,
    }


def straight_loops(distances, query, gallery, rule):
    """Average precision and first correct rank of each query, the slow and plain way."""
    precisions, firsts = [], []
    for q in range(len(query.identity)):
        ranked = sorted(range(len(gallery.identity)), key=lambda g: (distances[q, g], g))
        rank = hits = first = 0
        total = 0.0
        for g in ranked:
            correct = query.identity[q] == gallery.identity[g] >= 0
            if correct and junk_by_rule(query.take([q]), gallery.take([g]))[rule][0]:
                continue
            rank += 1
            if correct:
                hits += 1
                total += hits / rank
                first = first or rank
        precisions.append(total / hits if hits else float("nan"))
        firsts.append(first)
    return np.array(precisions), np.array(firsts)


def random_labels(random, count, identities, *, distractors):
    identity = random.integers(-1 if distractors else 0, identities, count)
    return Labels(identity, *(random.integers(0, 3, count) for _ in range(5)))


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("levels", [0, 3, 1])
@pytest.mark.parametrize("seed", range(6))
def test_scores_equal_straight_loops(rule, levels, seed):
    random = np.random.default_rng([seed, levels])
    query = random_labels(random, 23, 6, distractors=True)
    gallery = random_labels(random, int(random.integers(10, 60)), 8, distractors=True)
    shape = (len(query.identity), len(gallery.identity))
    # `levels` distinct distances make ties; 0 makes none.
    distances = random.integers(0, levels, shape).astype(np.float32) if levels else random.normal(size=shape)
    precision, first = straight_loops(distances, query, gallery, rule)
    blocks = (distances[i : i + 5] for i in range(0, len(distances), 5))
    scores = score_from_distances(blocks, query, gallery, rule, max_rank=70)
    np.testing.assert_allclose(scores.average_precision, precision, rtol=1e-12)
    np.testing.assert_array_equal(scores.first_match, first)
    assert scores.counted == np.count_nonzero(first)
    assert scores.counted + sum(scores.dropped.values()) == scores.queries == 23
    assert scores.map == pytest.approx(np.nanmean(precision), rel=1e-12)
    counted = first[first > 0]
    np.testing.assert_allclose(scores.cmc, [np.mean(counted <= k + 1) for k in range(70)], rtol=1e-12)
    assert scores.ranks == pytest.approx({f"R-{k}": np.mean(counted <= k) for k in (1, 5, 10, 20)})


def test_blocks_of_any_size_give_the_same_scores_from_embeddings():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(50, 3, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[::4, :2] = 0
    embeddings = vectors.reshape(50, 24)
    labels = random_labels(random, 50, 5, distractors=False)
    query, gallery = labels.take(np.arange(20)), labels.take(np.arange(20, 50))
    all_scores = [
        score(embeddings[:20], embeddings[20:], query, gallery, similarity=parts_of(embeddings, 3), block=b)
        for b in (1, 7, 20, 256)
    ]
    near = similarity(embeddings[:20], embeddings[20:], parts=3)
    all_scores.append(score_from_distances(-near, query, gallery))
    for scores in all_scores[1:]:
        np.testing.assert_allclose(scores.average_precision, all_scores[0].average_precision, rtol=1e-12)
        np.testing.assert_array_equal(scores.cmc, all_scores[0].cmc)


def test_similarity_averages_over_the_parts_both_images_have():
    query = np.array([[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], np.float32)
    gallery = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0.6, 0.8], [1, 0, 0, 0]], np.float32)
    expected = np.array([[1, 0.5, 0.8, 1], [1, 1, 0.8, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(similarity(query, gallery, parts=2), expected, atol=1e-7)
    complete = similarity(query[:1], gallery[:2], parts=2)  # every part present everywhere takes a shorter way
    np.testing.assert_allclose(complete, [[1, 0.5]], atol=1e-7)


def test_similarity_keeps_float64_and_makes_everything_else_float32():
    ones = np.ones((2, 4))
    assert similarity(ones, ones, parts=2).dtype == np.float64
    assert similarity(ones.astype(np.float16), ones, parts=2).dtype == np.float32


def test_dropped_queries_are_counted_by_the_rule_that_removed_their_images():
    #          kept  camera  clothes  both   nobody  unknown person
    query = Labels(np.array([0, 1, 2, 3, 9, -1]), np.array([0, 0, 0, 0, 0, 0]), np.array([0, 0, 0, 0, 0, 0]))
    gallery = Labels(
        np.array([0, 0, 1, 1, 2, 2, 3, 3, -1]),
        np.array([1, 0, 0, 0, 1, 2, 0, 1, 0]),
        np.array([1, 1, 1, 2, 0, 0, 1, 0, 0]),
    )
    scores = score_from_distances(np.zeros((6, 9)), query, gallery, "cc")
    assert scores.dropped == {
        "the query shows an unknown person (negative identity)": 1,
        "no image of this identity in the gallery": 1,
        "all removed by same camera": 1,
        "all removed by same clothes": 1,
        "all removed by same camera and same clothes": 1,
    }
    assert (scores.queries, scores.counted, scores.map) == (6, 1, 1.0)
    assert np.isnan(scores.average_precision).tolist() == [False, True, True, True, True, True]
    assert json.loads(json.dumps(scores.summary()))["counted"] == 1


def test_no_valid_query_at_all_names_the_rule_that_removed_them():
    same = Labels(np.arange(4), np.zeros(4, int), np.arange(4))
    with pytest.raises(InputError, match=r"rule 'general': 4 x all removed by same camera"):
        score_from_distances(np.zeros((4, 4)), same, same, "general")
    stranger = same._replace(identity=np.arange(4) + 10)
    with pytest.raises(InputError, match=r"4 x no image of this identity in the gallery"):
        score_from_distances(np.zeros((4, 4)), stranger, same, "none")


def test_unknown_clothes_are_not_taken_for_equal_clothes():
    labels = Labels(np.array([0, 0, -1]), np.arange(3), np.array([-1, 2, -1]))
    with pytest.raises(InputError, match=r"compares clothes, but 1 of 3 query images have clothes -1"):
        score_from_distances(np.zeros((3, 3)), labels, labels, "cc")
    assert score_from_distances(np.zeros((3, 3)), labels, labels, "general").counted == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "generl"}, "did you mean general"),
        ({"distances": np.zeros((2, 4))}, r"expected rows of 3 gallery images"),
        ({"distances": np.zeros((1, 3))}, "distances of 1 queries for labels of 2"),
        ({"distances": np.zeros((3, 3))}, "2 queries in all"),
        ({"distances": np.array([[0, 1, 2], [0, np.nan, 1]])}, "query 1 has a distance that is not a number"),
        ({"max_rank": 0}, "max_rank is 0"),
        ({"query_labels": Labels(np.zeros(2), np.zeros(3), np.zeros(2))}, r"query labels have shapes .*camera \(3,\)"),
        ({"gallery_labels": Labels(*[np.zeros(0)] * 3)}, "0 gallery images"),
    ],
)
def test_bad_input_is_refused_with_what_was_found(change, message):
    good: dict[str, Any] = {
        "distances": np.zeros((2, 3)),
        "query_labels": Labels(np.zeros(2), np.zeros(2), np.zeros(2)),
        "gallery_labels": Labels(np.zeros(3), np.ones(3), np.zeros(3)),
    }
    assert score_from_distances(**good).counted == 2
    with pytest.raises(InputError, match=message):
        score_from_distances(**(good | change))


def test_embeddings_that_do_not_divide_into_the_parts_are_refused():
    with pytest.raises(InputError, match=r"of length 7 with 3 parts"):
        similarity(np.zeros((2, 7)), np.zeros((2, 7)), parts=3)


def curve_area(distances, correct):
    """The area under the precision-recall curve by the trapezoid rule, one point for each distance."""
    points = [(0.0, 1.0)]
    for limit in sorted(set(distances)):
        reached = [good for distance, good in zip(distances, correct, strict=True) if distance <= limit]
        points.append((sum(reached) / sum(correct), sum(reached) / len(reached)))
    return sum((r1 - r0) * (p0 + p1) / 2 for (r0, p0), (r1, p1) in itertools.pairwise(points))


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("levels", [3, 1000])  # three levels of distance: many equal ones
def test_trapezoids_are_the_area_under_the_curve_of_the_kept_images(rule, levels):
    random = np.random.default_rng(levels)
    query, gallery = random_labels(random, 12, 4, distractors=1), random_labels(random, 60, 4, distractors=5)
    distances = random.integers(0, levels, (12, 60)) / levels
    scores = score_from_distances(distances, query, gallery, rule, integration="trapezoid")
    steps = score_from_distances(distances, query, gallery, rule)
    np.testing.assert_array_equal(scores.first_match, steps.first_match)
    for q in range(12):
        if not scores.first_match[q]:
            assert np.isnan(scores.average_precision[q])
            continue
        correct = (gallery.identity == query.identity[q]) & (gallery.identity >= 0)
        kept = ~(correct & junk_by_rule(query.take([q]), gallery)[rule])
        expected = curve_area(distances[q, kept].tolist(), correct[kept].tolist())
        assert scores.average_precision[q] == pytest.approx(expected, abs=1e-12)
    if levels > 100:
        assert scores.map < steps.map
    assert scores.summary()["average_precision"] == "trapezoid"
    assert "average_precision" not in steps.summary()


def test_an_unknown_average_precision_is_refused():
    labels = Labels(*np.zeros((3, 2), int))
    with pytest.raises(InputError, match=r"eval\.average_precision is 'area'; expected one of step, trapezoid"):
        score_from_distances(np.zeros((2, 2)), labels, labels, "none", integration="area")
