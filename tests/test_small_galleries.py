"""Galleries smaller than every k, equal images, one camera or none: figures by hand, finite and explained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deskpro_jax.cli import search
from deskpro_jax.data.datasets.find import find_protocols
from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.evaluation import protocols
from deskpro_jax.evaluation.matching_rules import Labels
from deskpro_jax.evaluation.protocols import ProtocolResult, evaluate_protocol
from deskpro_jax.evaluation.ranking import score
from deskpro_jax.evaluation.reranking import Reranking, rerank
from deskpro_jax.evaluation.results_files import _explained
from deskpro_jax.report.confusions import find_confusions
from deskpro_jax.report.ranked import choose, ranked_lists
from deskpro_jax.report.view import View
from deskpro_jax.search.approximate import METHODS
from deskpro_jax.search.thresholds import calibrate
from gallery import DIMENSION, PARTS, WIDTH, People, parts_of, write

QUERY = np.array([[1.0, 0.0]])
# Cosines 0.5 and 0 with the query, so that squares of 2 - 2 cosine are 1 and 4.
TWO = np.array([[0.5, np.sqrt(0.75)], [0.0, 1.0]])
SIMILARITY = parts_of(QUERY, 1)


def labels(identity: list[int], camera: list[int] | int = -1, clothes: int = -1) -> Labels:
    count = len(identity)
    return Labels(np.array(identity), np.broadcast_to(camera, count), np.full(count, clothes))


def scored(name: str, gallery: np.ndarray, query: Labels, of_gallery: Labels, rerank: bool = False) -> ProtocolResult:
    (protocol,) = find_protocols("folder", [name])
    again = Reranking() if rerank else None
    return evaluate_protocol(protocol, QUERY, gallery, query, of_gallery, similarity=SIMILARITY, reranking=again)


def at_angles(degrees: list[float], identity: list[int]) -> People:
    """Returns images of which each part is the same vector in the plane, at these angles."""
    parts = np.zeros((len(degrees), PARTS, WIDTH), np.float32)
    parts[..., 0], parts[..., 1] = (function(np.deg2rad(degrees))[:, None] for function in (np.cos, np.sin))
    return People(parts.reshape(-1, DIMENSION), np.array(identity), np.ones(len(degrees), bool))


def test_a_gallery_smaller_than_max_rank_by_hand() -> None:
    result = score(QUERY, TWO, labels([7]), labels([8, 7]), "none", similarity=SIMILARITY, max_rank=50)
    assert result.map == 0.5
    np.testing.assert_array_equal(result.cmc, [0, *49 * [1]])
    assert result.ranks == {"R-1": 0, "R-5": 1, "R-10": 1, "R-20": 1}
    one = score(QUERY, TWO[:1], labels([7]), labels([7]), "none", similarity=SIMILARITY)
    assert (one.map, one.cmc.min()) == (1, 1)


def test_what_a_small_gallery_cannot_show_is_said() -> None:
    plain = _explained(scored("none", TWO, labels([7]), labels([8, 7])))
    assert plain == "no image removed; with a gallery of 2 images R-5, R-10, R-20 are 100 % whatever comes first"
    again = _explained(scored("none", TWO, labels([7]), labels([8, 7]), rerank=True))
    assert "lambda=0.3 (all 3 images are neighbours of each other); with a gallery of 2 images" in again
    many = np.repeat(TWO, 20, axis=0)
    assert _explained(scored("none", many, labels([7]), labels(40 * [7]))) == "no image removed"


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (2, 3), (100, 100)])
def test_re_ranking_among_fewer_images_than_neighbours_by_hand(k1: int, k2: int) -> None:
    (distances,) = rerank(QUERY, TWO, similarity=SIMILARITY, k1=k1, k2=k2)
    # Everybody is a neighbour of everybody, so the mean encodings are equal and their Jaccard distance is 0.
    np.testing.assert_allclose(distances, [[0.3 * 1 / 4, 0.3 * 4 / 4]], atol=1e-12)


def test_re_ranking_of_one_gallery_image_by_hand() -> None:
    (distances,) = rerank(QUERY, TWO[:1], similarity=SIMILARITY, k1=20, k2=1)
    # Encodings (1, 1/e) and (1/e, 1), each over its sum; the least of the two adds up to 2 / (1 + e).
    shared = 2 / (1 + np.e)
    np.testing.assert_allclose(distances, [[0.7 * (1 - shared / (2 - shared)) + 0.3]], atol=1e-12)


@pytest.mark.parametrize("again", [False, True])
def test_equal_images_rank_in_the_order_of_the_gallery(again: bool) -> None:
    equal = np.repeat(QUERY, 3, axis=0)
    result = scored("none", equal, labels([7]), labels([8, 7, 7]), again)
    assert result.figures["mAP"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (result.figures["R-1"], result.figures["R-5"]) == (0, 1)
    if again:
        (distances,) = rerank(QUERY, equal, similarity=SIMILARITY)
        np.testing.assert_allclose(distances, 0, atol=1e-12)


def test_one_camera_leaves_the_protocol_that_compares_none() -> None:
    query, gallery = labels([7], 1, 0), labels([8, 7], 1, 0)
    able, left_out = protocols.applicable(find_protocols("folder"), query, gallery)
    assert [protocol.name for protocol in able] == ["none"]
    assert list(left_out) == ["general", "cc", "sc"]
    assert "1 x all removed by same camera (1 queries, 2 gallery images)" in left_out["general"]
    assert scored("none", TWO, query, gallery).figures["mAP"] == 0.5


def test_no_camera_leaves_the_protocol_that_compares_none() -> None:
    query, gallery = labels([7]), labels([8, 7])
    able, left_out = protocols.applicable(find_protocols("folder"), query, gallery)
    assert [protocol.name for protocol in able] == ["none"]
    assert "compares camera, but 1 of 1 query images have camera -1 (unknown)" in left_out["general"]
    assert scored("none", TWO, query, gallery, rerank=True).figures["mAP"] == 0.5


@pytest.mark.parametrize("camera", [-1, 3])
@pytest.mark.parametrize("gallery", [TWO, np.repeat(QUERY, 2, axis=0), TWO[:1]])
def test_the_report_of_a_small_gallery(camera: int, gallery: np.ndarray) -> None:
    identity = [8, 7][-len(gallery) :]
    rows = np.arange(len(gallery))
    view = View(
        "body",
        "none",
        0,
        QUERY,
        gallery,
        labels([7], camera),
        labels(identity, camera),
        np.arange(1),
        rows,
        SIMILARITY,
    )
    scores = view.score()
    lists = ranked_lists(view, scores, choose(scores.average_precision, np.array([7]), 5), 10)
    (best,) = lists["best"]
    assert [entry.right for entry in best.entries] == [person == 7 for person in identity]
    assert (best.first_match, best.right, best.junk) == (len(gallery), 1, 0)
    found = find_confusions(view, 5)
    assert (found.counted, found.wrong_first) == (1, len(gallery) - 1)
    assert len(found.alike) == len(gallery) - 1
    (missed,) = found.missed
    assert (missed.rank, missed.gallery) == (len(gallery), len(gallery))


@pytest.mark.parametrize("method", ["exact", *METHODS])
@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_gallery_smaller_than_k_is_listed_whole(
    method: str, images: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    angles = [80.0, 10.0, 10.0, 40.0, 60.0][:images]
    gallery = write(at_angles(angles, list(range(images))), tmp_path / "g.parquet")
    query = write(at_angles([0.0], [0]), tmp_path / "q.npy")
    flags = ["--gallery", str(gallery), "--query", str(query), "--method", method, "--format=json"]
    assert search.main([*flags, "-k", "7"]) == 0
    captured = capfd.readouterr()
    (found,) = json.loads(captured.out)
    order = sorted(range(images), key=lambda i: angles[i])  # equal ones in the order of the gallery
    assert [int(match["image_id"]) for match in found["matches"]] == order
    cosines = np.cos(np.deg2rad([angles[i] for i in order]))
    np.testing.assert_allclose([match["similarity"] for match in found["matches"]], cosines, atol=2e-3)
    assert f"note: 1 of 1 queries have fewer matches than -k 7 (the fewest: {images})" in captured.err
    assert "training points" not in captured.err + captured.out
    assert search.main([*flags, "-k", str(images)]) == 0
    assert "note:" not in capfd.readouterr().err


def test_calibration_by_hand(tmp_path: Path) -> None:
    drawn = at_angles([0, 10, 40, 90], [1, 1, 2, 3])
    found = calibrate(EmbeddingSet(write(drawn, tmp_path / "e.npy")), 0.4)
    # Pairs of different people: 0.866, 0.766, 0.643, 0.174, 0. Two of five may pass: it lies just above the third.
    for limit in found.by_streams.values():
        assert (limit.different, limit.same, limit.far, limit.tar) == (5, 1, 0.4, 1.0)
        assert np.cos(np.deg2rad(50)) < limit.similarity < np.cos(np.deg2rad(50)) + 1e-5


def test_calibration_with_two_equal_images_of_different_people_lets_neither_pass(tmp_path: Path) -> None:
    drawn = at_angles([0, 0, 0, 90], [1, 2, 3, 3])
    found = calibrate(EmbeddingSet(write(drawn, tmp_path / "e.npy")), 0.4)
    for limit in found.by_streams.values():
        assert (limit.different, limit.same, limit.far, limit.tar) == (5, 1, 0.0, 0.0)
        assert np.isfinite(limit.similarity)
