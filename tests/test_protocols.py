"""Protocols: the images they select, single-shot draws, figures against direct scores, and what does not apply."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from deskpro_jax.errors import InputError
from deskpro_jax.matching import RULES, Labels
from deskpro_jax.protocols import (
    PROTOCOLS,
    Filter,
    Protocol,
    draw_single_shot,
    evaluate_protocol,
    find_protocols,
    not_applicable,
    select,
)
from deskpro_jax.retrieval import score


def prcc(first=0, seed=0):
    """Six people in camera A's gallery and queries of B and C; labels and embeddings of both splits."""
    random = np.random.default_rng(seed)
    query_identity, gallery_identity = np.repeat(np.arange(6), 8), np.repeat(np.arange(6), 5)
    query = Labels(query_identity, first + 1 + np.arange(48) % 2, np.full(48, -1))
    gallery = Labels(gallery_identity, np.full(30, first), np.full(30, -1))
    centres = random.normal(size=(6, 2 * 8))
    embeddings = [
        (centres[identity] + random.normal(size=(len(identity), 16)) * 2).reshape(-1, 2, 8)
        for identity in (query_identity, gallery_identity)
    ]
    embeddings = [(e / np.linalg.norm(e, axis=2, keepdims=True)).reshape(-1, 16) for e in embeddings]
    return query, gallery, *embeddings


def test_every_protocol_names_a_known_rule_and_has_its_own_name():
    for protocols in PROTOCOLS.values():
        assert len({p.name for p in protocols}) == len(protocols)
        assert all(p.rule in RULES and p.description for p in protocols)


@pytest.mark.parametrize("first", [0, 1])
def test_prcc_takes_queries_of_one_camera_whether_files_count_from_0_or_1(first):
    query, gallery, *_ = prcc(first)
    for name, offset in (("same_clothes_multi_shot", 1), ("cross_clothes_single_shot", 2)):
        (protocol,) = find_protocols("prcc", [name])
        queries, kept = select(protocol, query, gallery)
        np.testing.assert_array_equal(queries, np.flatnonzero(query.camera == first + offset))
        np.testing.assert_array_equal(kept, np.arange(30))


def test_filters_by_camera_and_clothes_in_both_splits():
    labels = Labels(np.arange(6), np.array([1, 2, 3, 4, 2, 3]), np.array([0, 0, 1, 1, 1, 0]))
    protocol = Protocol("x", "x", "none", query=Filter(cameras=(2, 3), clothes=(1,)), gallery=Filter(cameras=(3, 4)))
    queries, gallery = select(protocol, labels, labels)
    assert queries.tolist() == [2, 4]
    assert gallery.tolist() == [2, 3, 5]


def test_multi_shot_is_the_score_of_the_selected_images():
    query, gallery, query_embeddings, gallery_embeddings = prcc()
    (protocol,) = find_protocols("prcc", ["cross_clothes_multi_shot"])
    result = evaluate_protocol(protocol, query_embeddings, gallery_embeddings, query, gallery, parts=2)
    chosen = query.camera == 2
    direct = score(query_embeddings[chosen], gallery_embeddings, query.take(chosen), gallery, "none", parts=2)
    assert result.figures == {"mAP": direct.map, **direct.ranks}
    assert result.figures["mAP"] < 1
    assert (result.deviations, result.gallery, len(result.scores)) == ({}, 30, 1)


def test_single_shot_is_mean_and_deviation_over_ten_seeded_draws():
    query, gallery, query_embeddings, gallery_embeddings = prcc()
    (protocol,) = find_protocols("prcc", ["cross_clothes_single_shot"])

    def run(seed):
        return evaluate_protocol(protocol, query_embeddings, gallery_embeddings, query, gallery, parts=2, seed=seed)

    result, chosen = run(4), query.camera == 2
    direct = []
    for draw in range(10):
        kept = draw_single_shot(gallery.identity, seed=4, draw=draw)
        one = score(
            query_embeddings[chosen], gallery_embeddings[kept], query.take(chosen), gallery.take(kept), "none", parts=2
        )
        direct.append(one.map)
    assert result.figures["mAP"] == pytest.approx(np.mean(direct), rel=1e-12)
    assert result.deviations["mAP"] == pytest.approx(np.std(direct), rel=1e-12)
    assert result.deviations["mAP"] > 0
    assert (result.gallery, len(result.scores)) == (6, 10)
    assert run(4).figures == result.figures
    assert run(5).figures != result.figures
    summary = json.loads(json.dumps(result.summary()))
    assert (summary["protocol"], summary["draws"], summary["counted"]) == ("cross_clothes_single_shot", 10, 24)


def test_single_shot_draws_one_image_an_identity_evenly():
    identity = np.array([7, 3, 7, 3, 3, 5, 7])
    drawn = np.zeros(7, int)
    for draw in range(600):
        kept = draw_single_shot(identity, seed=0, draw=draw)
        assert sorted(identity[kept]) == [3, 5, 7]
        assert (np.diff(kept) > 0).all()
        drawn[kept] += 1
    assert drawn[5] == 600
    # 200 expected of each of three images, standard deviation 11.5
    assert np.abs(drawn[[0, 1, 2, 3, 4, 6]] - 200).max() < 60


def test_general_and_clothes_changing_rules_differ_where_clothes_repeat():
    labels = Labels(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2]), np.array([0, 0, 1, 2, 2, 3]))
    random = np.random.default_rng(1).normal(size=(6, 4))
    general, clothes_changing = (
        evaluate_protocol(p, random, random, labels, labels, parts=1) for p in find_protocols("synthetic_tiny")
    )
    assert general.protocol.name == general.scores[0].rule == "general"
    assert clothes_changing.protocol.name == clothes_changing.scores[0].rule == "cc"
    assert general.figures["mAP"] != clothes_changing.figures["mAP"]


def test_celeb_image_number_removes_nothing():
    random = np.random.default_rng(2)
    query = Labels(np.arange(5), np.full(5, 1), np.full(5, -1))
    gallery = Labels(np.repeat(np.arange(5), 3), np.tile([2, 10, 11], 5), np.full(15, -1))
    embeddings = random.normal(size=(20, 4))
    (protocol,) = find_protocols("celeb")
    result = evaluate_protocol(protocol, embeddings[:5], embeddings[5:], query, gallery, parts=1)
    none = evaluate_protocol(
        dataclasses.replace(protocol, rule="none"), embeddings[:5], embeddings[5:], query, gallery, parts=1
    )
    assert result.figures == none.figures
    assert result.scores[0].counted == 5


def test_unknown_names_are_refused_with_near_matches():
    with pytest.raises(InputError, match=r"did you mean .*celeb_light"):
        find_protocols("celeb_ligth")
    with pytest.raises(InputError, match="did you mean same_clothes_multi_shot"):
        find_protocols("prcc", ["same_clothes_multishot"])


def test_a_protocol_says_why_it_does_not_apply():
    query, gallery, query_embeddings, gallery_embeddings = prcc()
    (protocol,) = find_protocols("prcc", ["same_clothes_multi_shot"])
    assert not_applicable(protocol, query, gallery) is None
    only_c = query.take(np.flatnonzero(query.camera == 2))
    reason = not_applicable(protocol, only_c, gallery)
    assert reason is not None
    assert "keeps none of the 24 query images; their cameras are: 2" in reason
    clothes_changing = find_protocols("synthetic_small", ["cc"])[0]
    with pytest.raises(InputError, match=r"protocol 'cc': .* 48 of 48 query images have clothes -1"):
        evaluate_protocol(clothes_changing, query_embeddings, gallery_embeddings, query, gallery, parts=2)
