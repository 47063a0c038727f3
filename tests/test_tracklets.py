"""Tracklets are compared in place of images: means of embeddings, labels that agree, figures by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from deskpro_jax.data.datasets.protocols import CLOTHES_CHANGING, GENERAL, Protocol
from deskpro_jax.data.schema import JUNK
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.matching_rules import Labels
from deskpro_jax.evaluation.protocols import evaluate_protocol, not_applicable, read_cameras, select
from deskpro_jax.evaluation.similarity import Similarity, StreamParts

FACE_AND_BODY = Similarity((StreamParts("face", 1, 2, True), StreamParts("body", 1, 2)))
BY_TRACKLET = dataclasses.replace(GENERAL, by_tracklet=True)


def labels(*rows: tuple[int, int, int, int]) -> Labels:
    """Returns the labels of images, each an identity, camera, clothes and tracklet."""
    return Labels(*np.array(rows).T)


def at(degrees: float) -> list[float]:
    return [float(np.cos(np.deg2rad(degrees))), float(np.sin(np.deg2rad(degrees)))]


def test_a_tracklet_is_the_mean_of_its_frames_and_its_face_of_those_with_a_face() -> None:
    none = [0.0, 0.0]
    query = np.array([[*at(0), *at(10)], [*none, *at(30)], [*none, *at(0)]])
    query_labels = labels((1, 1, 0, 5), (1, 1, 0, 5), (2, 1, 0, 3))
    gallery = np.array([[*at(90), *at(20)], [*none, *at(0)], [*at(80), *at(60)], [*at(0), *at(90)]])
    # Tracklets 7 and 8 of persons 1 and 2; the order of their images is mixed.
    gallery_labels = labels((1, 2, 0, 7), (2, 2, 0, 8), (1, 2, 0, 7), (2, 2, 0, 8))
    chosen = select(BY_TRACKLET, query_labels, gallery_labels)
    assert [rows.tolist() for rows in chosen] == [[0, 2], [0, 1]]
    result = evaluate_protocol(BY_TRACKLET, query, gallery, query_labels, gallery_labels, similarity=FACE_AND_BODY)
    # Query 5: face at 0, body at 20; tracklet 7: face at 85, body at 40; tracklet 8: face at 0, body at 45.
    # 7 is at (cos 85 + cos 20) / 2 = 0.51, 8 at (1 + cos 25) / 2 = 0.95. Query 3 has no face: by the body alone, 7 is
    # at cos 40 and 8 at cos 45.
    assert result.scores[0].first_match.tolist() == [2, 2]
    assert result.figures["mAP"] == pytest.approx(1 / 2)
    assert (result.gallery, result.scores[0].queries) == (2, 2)
    assert result.summary()["queries"] == 2


def test_means_of_one_frame_each_are_the_frames() -> None:
    rng = np.random.default_rng(0)
    query, gallery = (FACE_AND_BODY.unit_parts(rng.normal(size=(count, 4))) for count in (6, 20))
    one = Labels(np.arange(6) % 3, np.zeros(6, int), np.arange(6) % 2, np.arange(6))
    two = Labels(np.arange(20) % 3, np.arange(20) % 4, np.arange(20) % 2, 30 - np.arange(20))
    for protocol in (GENERAL, CLOTHES_CHANGING):
        images = evaluate_protocol(protocol, query, gallery, one, two, similarity=FACE_AND_BODY)
        by_tracklet = dataclasses.replace(protocol, by_tracklet=True)
        tracklets = evaluate_protocol(by_tracklet, query, gallery, one, two, similarity=FACE_AND_BODY)
        assert tracklets.figures == pytest.approx(images.figures, abs=1e-12)


def test_features_as_they_are_are_averaged_without_scaling() -> None:
    features = Similarity((StreamParts("body", 1, 2),), distance="euclidean")
    query, gallery = np.array([[3.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 5.0], [1.0, 0.0]])
    known = labels((1, 1, 0, 0)), labels((1, 2, 0, 4), (1, 2, 0, 4), (2, 2, 0, 6))
    result = evaluate_protocol(BY_TRACKLET, query, gallery, *known, similarity=features)
    assert result.figures["mAP"] == 1 / 2  # tracklet 4 is at (2.5, 2.5), farther from (3, 0) than (1, 0) is


def test_junk_images_are_in_no_tracklet() -> None:
    known = labels((1, 1, 0, 0)), labels((JUNK, 2, 0, -1), (1, 2, 0, 4), (2, 2, 0, 6))
    assert [rows.tolist() for rows in select(BY_TRACKLET, *known)] == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (((1, 2, 0, 4), (1, 2, 0, -1)), "compares tracklets, but 1 of 2 gallery images have tracklet -1"),
        (((1, 2, 0, 4), (2, 2, 0, 4)), "gallery tracklet 4 has images of identity 1 and 2; expected one identity"),
        (((1, 2, 0, 4), (1, 3, 0, 4)), "gallery tracklet 4 has images of camera 2 and 3"),
        (((1, 2, 0, 4), (1, 2, 1, 4)), "gallery tracklet 4 has images of clothes 0 and 1"),
    ],
)
def test_images_without_tracklets_of_their_own_cannot_be_compared_by_tracklet(
    rows: tuple[tuple[int, int, int, int], ...], message: str
) -> None:
    problem = not_applicable(BY_TRACKLET, labels((1, 1, 0, 0)), labels(*rows))
    assert problem is not None
    assert message in problem
    without = Labels(*(np.array([value]) for value in (1, 1, 0)))
    assert "1 of 1 query images have tracklet -1" in str(not_applicable(BY_TRACKLET, without, labels(*rows)))


def test_the_rule_of_tracklets_keeps_others_of_the_same_camera() -> None:
    protocol = Protocol("general", "by tracklet", "tracklet")
    query, gallery = labels((1, 1, 0, 4)), labels((1, 1, 0, 4), (2, 1, 0, 4), (1, 1, 0, 5))
    body = Similarity((StreamParts("body", 1, 2),))
    rows = np.array([at(0)]), np.array([at(1), at(2), at(3)])
    result = evaluate_protocol(protocol, *rows, query, gallery, similarity=body)
    assert result.figures["mAP"] == 1 / 2
    without = query._replace(tracklet=None)
    with pytest.raises(InputError, match="compares tracklet, but 1 of 1 query images have tracklet -1"):
        evaluate_protocol(protocol, *rows, without, gallery, similarity=body)


def test_locations_are_those_of_the_cameras_and_scales_are_labels() -> None:
    query = labels((1, 10, 0, 0))._replace(scale=np.array([0]))
    gallery = labels((1, 10, 0, 1), (1, 11, 0, 2), (1, 20, 0, 3), (2, 20, 0, 4))._replace(scale=np.array([1, 1, 0, 0]))
    places = ((10, 11), (20, 21))
    assert read_cameras(Protocol("p", "", "none", locations=places), gallery).location.tolist() == [0, 0, 1, 1]
    body, rows = Similarity((StreamParts("body", 1, 2),)), (np.array([at(0)]), np.array([at(a) for a in (1, 4, 3, 2)]))
    ranks = {}
    for rule in ("same_location", "other_location", "same_scale", "other_scale"):
        protocol = Protocol(rule, rule, rule, locations=places)
        result = evaluate_protocol(protocol, *rows, query, gallery, similarity=body)
        ranks[rule] = result.scores[0].first_match.tolist()
    # The image of camera 10 is always junk. Without it and those of another kind the order is person 2, camera 20, 11.
    assert ranks == {"same_location": [2], "other_location": [2], "same_scale": [2], "other_scale": [2]}
    unknown = Protocol("p", "", "same_location", locations=((10, 11),))
    assert "compares location, but 2 of 4 gallery images" in str(not_applicable(unknown, query, gallery))
