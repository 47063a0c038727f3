"""Lists, confusions and histograms of the report are those that comparing every pair one by one gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

import gallery as made_up
from deskpro_jax.evaluation.matching_rules import Labels
from deskpro_jax.evaluation.ranking import RULES
from deskpro_jax.models.contract import StreamSpec
from deskpro_jax.models.lmbn import PARTS
from deskpro_jax.report import confusions, ranked, similarities, view
from deskpro_jax.report.view import View

QUERIES, GALLERY, PEOPLE = 60, 200, 12


def labels(people: made_up.People, seed: int, distractors: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    identity = people.identity.astype(np.int64)
    identity[:distractors] = -1
    return Labels(identity, rng.integers(0, 4, len(identity)), rng.integers(0, 3, len(identity)))


@pytest.fixture(scope="module", params=["general", "cc"])
def seen(request: pytest.FixtureRequest) -> View:
    query = made_up.people(QUERIES, PEOPLE, 1, noise=1.2)
    gallery = made_up.people(GALLERY, PEOPLE, 2, noise=1.2)
    return View(
        "both",
        request.param,
        0,
        query.vectors,
        gallery.vectors,
        labels(query, 3, 2),
        labels(gallery, 4, 15),
        np.arange(QUERIES) + 1000,
        np.arange(GALLERY) + 2000,
        made_up.SIMILARITY,
    )


def near(one: View) -> np.ndarray:
    """Mean over the parts that both images have, by loops over parts."""
    query, gallery = (x.reshape(len(x), made_up.PARTS, -1).astype(np.float64) for x in (one.query, one.gallery))
    products = np.einsum("qpd,gpd->qgp", query, gallery)
    both = query.any(2)[:, None] & gallery.any(2)[None]
    return products.sum(2) / both.sum(2)


def rankings(one: View) -> dict[int, list[tuple[int, bool]]]:
    """Query -> gallery images in order, and whether each is right; junk is not in it."""
    values, found = near(one), {}
    q, g = one.query_labels, one.gallery_labels
    for i in range(QUERIES):
        order = []
        for j in np.argsort(-values[i], kind="stable"):
            same = q.identity[i] == g.identity[j] and q.identity[i] >= 0
            junk = same and any(
                (getattr(q, r.field)[i] == getattr(g, r.field)[j]) == r.equal for r in RULES[one.rule].junk
            )
            if not junk:
                order.append((int(j), bool(same)))
        found[i] = order
    return found


def test_ranked_lists_are_those_of_retrieval(seen: View) -> None:
    scores = seen.score()
    everybody = {"best": [int(i) for i in np.flatnonzero(~np.isnan(scores.average_precision))]}
    lists = ranked.ranked_lists(seen, scores, everybody, 10)["best"]
    expected = rankings(seen)
    assert len(lists) == scores.counted > 40
    assert sum(one.junk for one in lists) > 0
    for one in lists:
        order = expected[one.query - 1000]
        hits = np.flatnonzero([right for _, right in order]) + 1
        assert [(e.position - 2000, e.right) for e in one.entries] == order[:10]
        assert one.right == len(hits)
        assert one.first_match == hits[0]
        assert one.average_precision == pytest.approx(np.mean(np.arange(1, len(hits) + 1) / hits))
        for entry in one.entries:
            assert entry.similarity == pytest.approx(near(seen)[one.query - 1000, entry.position - 2000], abs=1e-6)
        assert len(order) + one.junk == GALLERY


def test_the_best_the_median_and_the_worst_are_chosen_and_nobody_twice() -> None:
    precision = np.array([0.5, np.nan, 1.0, 1.0, 1.0, 0.1, 0.2, 0.6, 0.7, 0.3])
    identity = np.array([1, 1, 2, 2, 3, 4, 5, 6, 7, 8])
    found = ranked.choose(precision, identity, 2)
    assert found == {"best": [2, 4], "median": [7, 0], "worst": [5, 6]}  # of 2, 3 and 4 two people
    assert ranked.choose(precision, identity, 100)["best"] == [2, 4, 3]
    assert ranked.choose(np.array([np.nan, 0.5]), np.array([1, 2]), 4) == {"best": [1]}
    assert ranked.choose(np.array([0.2, 0.5]), np.array([1, 2]), 4) == {"best": [1], "worst": [0]}
    assert ranked.choose(np.array([np.nan]), np.array([1]), 4) == {}


def test_confusions_are_those_of_all_pairs(seen: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "BLOCK", 7)  # people in several blocks
    found = confusions.find_confusions(seen, 6)
    values, expected = near(seen), rankings(seen)
    who, there = seen.query_labels.identity, seen.gallery_labels.identity

    best: dict[tuple[int, int], float] = {}
    for i in np.flatnonzero(who >= 0):
        for j in np.flatnonzero(there != who[i]):
            two = tuple(sorted((int(who[i]), int(there[j]))))
            best[two] = max(best.get(two, -2.0), values[i, j])
    top = sorted(best.values(), reverse=True)[:6]
    np.testing.assert_allclose([look.similarity for look in found.alike], top, atol=1e-6)
    for look in found.alike:
        assert who[look.query - 1000] != there[look.gallery - 2000]
        assert look.similarity == pytest.approx(values[look.query - 1000, look.gallery - 2000], abs=1e-6)

    counted = [i for i, order in expected.items() if any(right for _, right in order)]
    wrong = [tuple(sorted((int(who[i]), int(there[expected[i][0][0]])))) for i in counted if not expected[i][0][1]]
    assert (found.counted, found.wrong_first) == (len(counted), len(wrong))
    assert len(wrong) > 3
    counts = {two: wrong.count(two) for two in wrong}
    assert [one.wrong for one in found.people] == sorted(counts.values(), reverse=True)[:6]
    for one in found.people:
        assert one.wrong == counts[one.people]
        assert one.queries == sum(int(who[i]) in one.people for i in counted)

    lowest: dict[int, tuple[float, int]] = {}
    for i in counted:
        place, (j, _) = max((p, e) for p, e in enumerate(expected[i]) if e[1])
        lowest[int(who[i])] = min(lowest.get(int(who[i]), (2.0, 0)), (values[i, j], place + 1))
    assert len(found.missed) == 6
    for one, (value, rank) in zip(found.missed, sorted(lowest.values()), strict=False):
        assert one.look.similarity == pytest.approx(value, abs=1e-6)
        assert one.rank == rank
        assert who[one.look.query - 1000] == there[one.look.gallery - 2000]


def opened(seen: View, streams: tuple[str, ...], missing_face: str = "body") -> Any:
    splits = [SimpleNamespace(**one._asdict()) for one in (seen.query_labels, seen.gallery_labels)]
    config = ConfigDict({"eval": {"missing_face": missing_face, "distance": "cosine"}, "seed": 0})
    dim = seen.query.shape[1] // (7 * len(streams))
    specs = tuple(StreamSpec(name, name, PARTS, (), dim) for name in streams)
    trained = SimpleNamespace(streams=specs)
    return SimpleNamespace(trained=trained, config=config, query=splits[0], gallery=splits[1])


def test_histograms_count_every_pair_once(seen: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarities, "BLOCK", 7)
    found = similarities.find_similarities(opened(seen, ("face", "body")), (seen.query, seen.gallery))
    assert [one.stream for one in found] == ["face", "body", "both"]
    q, g = seen.query_labels, seen.gallery_labels
    known = (q.identity >= 0)[:, None] & np.ones(GALLERY, bool)
    same = known & (q.identity[:, None] == g.identity)
    apart = same & (q.camera[:, None] != g.camera)
    clothes = q.clothes[:, None] == g.clothes
    wanted = {
        similarities.DIFFERENT: known & ~same,
        similarities.SAME: apart,
        similarities.SAME_CLOTHES: apart & clothes,
        similarities.OTHER_CLOTHES: apart & ~clothes,
    }
    values = near(seen)
    for name, pairs in wanted.items():
        kind = found[2].kinds[name]
        assert kind.pairs == pairs.sum()
        assert kind.mean == pytest.approx(values[pairs].mean(), abs=3e-4)  # half a bin of 1 / 2000
        assert kind.fractions.sum() == pytest.approx(1)
        counts, _ = np.histogram(values[pairs], found[2].edges)
        assert np.abs(counts / pairs.sum() - kind.fractions).max() < 0.02  # those on an edge
    threshold = np.quantile(values[wanted[similarities.DIFFERENT]], 0.99)
    assert found[2].tar == pytest.approx((values[apart] > threshold).mean(), abs=0.02)

    half = made_up.DIMENSION // 2
    faces = seen.query[:, :half].any(1)[:, None] & seen.gallery[:, :half].any(1)
    assert found[0].kinds[similarities.SAME].pairs == (apart & faces).sum() < apart.sum()


def test_without_clothes_labels_and_with_zeros_for_missing_faces(seen: View) -> None:
    bare = opened(seen, ("face", "body"), "zeros")
    bare.query.clothes = np.full(QUERIES, -1)
    found = similarities.find_similarities(bare, (seen.query, seen.gallery))[2]
    assert set(found.kinds) == {similarities.DIFFERENT, similarities.SAME}
    assert -1 <= found.edges[0] < found.edges[-1] <= 1 + 1e-9
