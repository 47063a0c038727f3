"""Protocols: the images they select, figures worked out by hand, single-shot draws, and what does not apply."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from deskpro_jax.data.datasets.find import SPECS
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.matching_rules import CAMERA_READINGS, RULES, Labels
from deskpro_jax.evaluation.protocols import (
    Filter,
    Protocol,
    applicable,
    draw_single_shot,
    evaluate_protocol,
    find_protocols,
    not_applicable,
    select,
)
from deskpro_jax.evaluation.ranking import score, score_from_distances
from deskpro_jax.evaluation.reranking import Reranking, rerank
from gallery import parts_of


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
    for protocols in (spec.protocols for spec in SPECS):
        assert len({p.name for p in protocols}) == len(protocols)
        assert all(p.rule in RULES and p.camera in CAMERA_READINGS and p.description for p in protocols)


def test_the_settings_of_every_dataset_by_name():
    names = {spec.name: [p.name for p in spec.protocols] for spec in SPECS}
    shots = [f"{c}_clothes_{s}_shot" for c in ("cross", "same") for s in ("single", "multi")]
    assert names["celeb"] == names["celeb_light"] == ["image_number", "first_digit", "none"]
    assert names["prcc"] == shots
    assert names["ltcc"] == ["general", "cc", "sc"]
    assert names["vc_clothes"] == ["all", "same_clothes", "cross_clothes"]
    assert names["last"] == ["general"]
    assert [p.rule for p in find_protocols("last")] == ["none"]
    assert names["deepchange"] == ["general"]
    assert [p.rule for p in find_protocols("deepchange")] == ["tracklet"]
    assert names["ccvid"] == ["general", "cc", "sc"]
    places = ["same_location", "other_location", "same_scale", "other_scale"]
    assert names["mevid"] == [*names["ccvid"], *places]
    assert {spec.name for spec in SPECS if spec.by_tracklet} == {"ccvid", "mevid"}
    assert names["folder"] == ["general", "cc", "sc", "none"]
    assert [p.draws for p in find_protocols("prcc")] == [10, 0, 10, 0]
    assert find_protocols("celeb", ["none, first_digit"]) == (find_protocols("celeb")[2], find_protocols("celeb")[1])
    assert find_protocols("celeb", ["none", "none"]) == (find_protocols("celeb")[2],)


def in_order(count):
    """Embeddings of that many images, the first the nearest to the query, which is [1, 0]."""
    angles = np.arange(1, count + 1) * (np.pi / 2 / (count + 1))
    return np.array([[1.0, 0.0]]), np.stack([np.cos(angles), np.sin(angles)], axis=1)


def by_hand(dataset, name, query, gallery, **options):
    """Scores one query of labels (identity, camera, clothes) against gallery images in the order of their rank."""
    labels = [Labels(*np.array(rows).T) for rows in ([query], gallery)]
    (protocol,) = find_protocols(dataset, [name])
    return evaluate_protocol(
        protocol, *in_order(len(gallery)), *labels, similarity=parts_of(in_order(1)[0], 1), **options
    )


def test_the_camera_rules_of_celeb_by_hand():
    query = (1, 1, -1)  # image number 1
    gallery = [(1, 10, -1), (2, 3, -1), (1, 2, -1), (2, 1, -1), (1, 11, -1)]
    found = {p.name: by_hand("celeb", p.name, query, gallery) for p in find_protocols("celeb")}
    # Hits at ranks 1, 3 and 5; by first digits 10 and 11 are of the query's camera 1, which leaves the hit at rank 2.
    whole = (1 / 1 + 2 / 3 + 3 / 5) / 3
    assert found["image_number"].figures == pytest.approx({"mAP": whole, "R-1": 1, "R-5": 1, "R-10": 1, "R-20": 1})
    assert found["none"].figures == found["image_number"].figures
    assert found["first_digit"].figures == pytest.approx({"mAP": 1 / 2, "R-1": 0, "R-5": 1, "R-10": 1, "R-20": 1})
    # What tells image_number and none apart: the same number twice.
    gallery[2] = (1, 1, -1)
    assert by_hand("celeb", "image_number", query, gallery).figures["mAP"] == pytest.approx((1 / 1 + 2 / 4) / 2)
    assert by_hand("celeb", "none", query, gallery).figures["mAP"] == pytest.approx(whole)


def test_first_digits_are_those_of_the_number():
    read = CAMERA_READINGS["first_digit"](np.array([-1, 0, 7, 10, 19, 20, 99, 100, 2345]))
    assert read.tolist() == [-1, 0, 7, 1, 1, 2, 9, 1, 2]


def test_the_rules_of_ltcc_by_hand():
    query = (3, 1, 1)  # camera 1, outfit 1
    gallery = [(3, 1, 2), (9, 2, 1), (3, 2, 1), (3, 3, 2), (9, 1, 1)]
    found = {p.name: by_hand("ltcc", p.name, query, gallery).figures for p in find_protocols("ltcc")}
    # The first image is of the query's camera and always leaves. Then: stranger, same outfit, other outfit, stranger.
    assert found["general"]["mAP"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["cc"]["mAP"] == pytest.approx(1 / 2)
    assert found["sc"]["mAP"] == pytest.approx(1 / 2)
    gallery[2], gallery[3] = gallery[3], gallery[2]
    assert by_hand("ltcc", "cc", query, gallery).figures["mAP"] == pytest.approx(1 / 2)
    gallery.insert(3, (9, 4, 4))
    assert by_hand("ltcc", "sc", query, gallery).figures["mAP"] == pytest.approx(1 / 3)


def test_the_cameras_of_vc_clothes_by_hand():
    labels = Labels(*np.array([(6, 3, 1), (6, 2, 1), (6, 4, 2), (6, 1, 3)]).T)
    gallery_rows = [(6, 3, 1), (1, 4, 2), (6, 4, 2), (1, 1, 1), (6, 2, 1), (6, 1, 3)]
    gallery = Labels(*np.array(gallery_rows).T)
    for name, queries, kept in (
        ("all", [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]),
        ("same_clothes", [0, 1], [0, 4]),
        ("cross_clothes", [0, 2], [0, 1, 2]),
    ):
        found = select(find_protocols("vc_clothes", [name])[0], labels, gallery)
        assert [part.tolist() for part in found] == [queries, kept]
    # Camera 3's own image leaves. All: hits at 2, 4 and 5. Cameras 2, 3: one image is left. 3, 4: a stranger first.
    query, whole = (6, 3, 1), (1 / 2 + 2 / 4 + 3 / 5) / 3
    assert by_hand("vc_clothes", "all", query, gallery_rows).figures["mAP"] == pytest.approx(whole)
    assert by_hand("vc_clothes", "same_clothes", query, gallery_rows).figures["mAP"] == 1
    assert by_hand("vc_clothes", "cross_clothes", query, gallery_rows).figures["mAP"] == pytest.approx(1 / 2)


def test_prcc_by_hand():
    gallery = [(5, 0, 0), (1, 0, 0), (5, 0, 0), (1, 0, 0)]
    multi = by_hand("prcc", "cross_clothes_multi_shot", (1, 2, 1), gallery)
    assert multi.figures["mAP"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    single = by_hand("prcc", "cross_clothes_single_shot", (1, 2, 1), gallery, seed=3)
    # Of each person one image is drawn; person 1 leads when its image at rank 2 is drawn and person 5's at rank 3.
    drawn = [set(draw_single_shot(np.array([5, 1, 5, 1]), seed=3, draw=i).tolist()) for i in range(10)]
    first = [kept == {1, 2} for kept in drawn]
    assert 0 < sum(first) < 10
    assert single.figures["R-1"] == pytest.approx(np.mean(first))
    assert single.figures["mAP"] == pytest.approx(np.mean([1.0 if hit else 0.5 for hit in first]))
    assert single.deviations["R-1"] == pytest.approx(np.sqrt(np.mean(first) * (1 - np.mean(first))))


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
    result = evaluate_protocol(
        protocol, query_embeddings, gallery_embeddings, query, gallery, similarity=parts_of(query_embeddings, 2)
    )
    chosen = query.camera == 2
    direct = score(
        query_embeddings[chosen],
        gallery_embeddings,
        query.take(chosen),
        gallery,
        "none",
        similarity=parts_of(query_embeddings, 2),
    )
    assert result.figures == {"mAP": direct.map, **direct.ranks}
    assert result.figures["mAP"] < 1
    assert (result.deviations, result.gallery, len(result.scores)) == ({}, 30, 1)


def test_single_shot_is_mean_and_deviation_over_ten_seeded_draws():
    query, gallery, query_embeddings, gallery_embeddings = prcc()
    (protocol,) = find_protocols("prcc", ["cross_clothes_single_shot"])

    def run(seed):
        return evaluate_protocol(
            protocol,
            query_embeddings,
            gallery_embeddings,
            query,
            gallery,
            similarity=parts_of(query_embeddings, 2),
            seed=seed,
        )

    result, chosen = run(4), query.camera == 2
    direct = []
    for draw in range(10):
        kept = draw_single_shot(gallery.identity, seed=4, draw=draw)
        one = score(
            query_embeddings[chosen],
            gallery_embeddings[kept],
            query.take(chosen),
            gallery.take(kept),
            "none",
            similarity=parts_of(query_embeddings, 2),
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
        evaluate_protocol(p, random, random, labels, labels, similarity=parts_of(random, 1))
        for p in find_protocols("synthetic_tiny")
    )
    assert general.protocol.name == general.scores[0].rule == "general"
    assert clothes_changing.protocol.name == clothes_changing.scores[0].rule == "cc"
    assert general.figures["mAP"] != clothes_changing.figures["mAP"]


def test_celeb_image_number_removes_nothing():
    random = np.random.default_rng(2)
    query = Labels(np.arange(5), np.full(5, 1), np.full(5, -1))
    gallery = Labels(np.repeat(np.arange(5), 3), np.tile([2, 10, 11], 5), np.full(15, -1))
    embeddings = random.normal(size=(20, 4))
    (protocol,) = find_protocols("celeb", ["image_number"])
    result = evaluate_protocol(
        protocol, embeddings[:5], embeddings[5:], query, gallery, similarity=parts_of(embeddings, 1)
    )
    none = evaluate_protocol(
        dataclasses.replace(protocol, rule="none"),
        embeddings[:5],
        embeddings[5:],
        query,
        gallery,
        similarity=parts_of(embeddings, 1),
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
        evaluate_protocol(
            clothes_changing,
            query_embeddings,
            gallery_embeddings,
            query,
            gallery,
            similarity=parts_of(query_embeddings, 2),
        )


def test_no_valid_query_names_the_protocol_and_the_rule_that_removed_them():
    # Everybody is seen by one camera, and in one outfit.
    labels = Labels(np.arange(4), np.arange(4), np.arange(4))
    able, left_out = applicable(find_protocols("folder"), labels, labels)
    assert [p.name for p in able] == ["none"]
    assert list(left_out) == ["general", "cc", "sc"]
    assert "protocol 'general': no query has a correct gallery image left" in left_out["general"]
    assert "rule 'general': 4 x all removed by same camera (4 queries, 4 gallery images)" in left_out["general"]
    with pytest.raises(InputError, match=r"protocol 'sc': .* 4 x all removed by same camera"):
        select(find_protocols("folder", ["sc"])[0], labels, labels)

    other_camera = labels._replace(camera=np.arange(4) + 4)
    able, left_out = applicable(find_protocols("ltcc"), labels, other_camera)
    assert [p.name for p in able] == ["general", "sc"]
    assert "rule 'cc': 4 x all removed by same clothes" in left_out["cc"]
    query, gallery = (
        Labels(np.arange(3), np.full(3, 1), np.full(3, -1)),
        Labels(np.arange(3), np.full(3, 12), -np.ones(3)),
    )
    able, left_out = applicable(find_protocols("celeb"), query, gallery)
    assert [p.name for p in able] == ["image_number", "none"]
    assert "3 x all removed by same camera" in left_out["first_digit"]


def test_unknown_labels_leave_a_folder_the_protocols_that_need_none():
    query = Labels(np.arange(3), np.array([1, -1, 1]), np.full(3, -1))
    gallery = Labels(np.arange(3), np.full(3, 2), np.full(3, -1))
    able, left_out = applicable(find_protocols("folder"), query, gallery)
    assert [p.name for p in able] == ["none"]
    assert "compares camera, but 1 of 3 query images have camera -1 (unknown)" in left_out["general"]
    able, _ = applicable(find_protocols("folder"), query._replace(camera=np.ones(3, int)), gallery)
    assert [p.name for p in able] == ["general", "none"]


def test_reranked_results_have_names_of_their_own():
    query, gallery, query_embeddings, gallery_embeddings = prcc()
    settings = Reranking(k1=5, k2=2, original_weight=0.4)
    for name in ("cross_clothes_multi_shot", "cross_clothes_single_shot"):
        (protocol,) = find_protocols("prcc", [name])
        plain, again = (
            evaluate_protocol(
                protocol,
                query_embeddings,
                gallery_embeddings,
                query,
                gallery,
                similarity=parts_of(query_embeddings, 2),
                seed=1,
                reranking=method,
            )
            for method in (None, settings)
        )
        assert (plain.protocol.name, again.protocol.name) == (name, f"{name}_reranked")
        assert again.protocol.description.endswith("re-ranked by k-reciprocal neighbours, k1=5, k2=2, lambda=0.4")
        assert "rerank" not in plain.summary()
        assert again.summary()["rerank"] == {"k1": 5, "k2": 2, "lambda": 0.4}
        chosen = np.flatnonzero(query.camera == 2)
        direct = []
        for draw in range(protocol.draws or 1):
            kept = draw_single_shot(gallery.identity, seed=1, draw=draw) if protocol.draws else np.arange(30)
            distances = rerank(
                query_embeddings[chosen],
                gallery_embeddings[kept],
                similarity=parts_of(query_embeddings, 2),
                k1=5,
                k2=2,
                original_weight=0.4,
            )
            direct.append(score_from_distances(distances, query.take(chosen), gallery.take(kept), "none").map)
        assert again.figures["mAP"] == pytest.approx(np.mean(direct), rel=1e-12)
        assert again.figures != plain.figures
