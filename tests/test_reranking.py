"""Re-ranking: golden distances and figures, a dense reference, block sizes, images without any part."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tracemalloc

import numpy as np
import pytest

import gallery as made_up
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.protocols import Protocol, evaluate_protocol
from deskpro_jax.evaluation.ranking import Labels, score_from_distances
from deskpro_jax.evaluation.reranking import Reranking, rerank
from gallery import parts_of

FOLDER = pathlib.Path(os.environ.get("DESKPRO_GOLDEN") or pathlib.Path(__file__).parent / "golden")
GOLDEN = FOLDER / "retrieval.npz"


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{FOLDER} has no retrieval case")
def test_golden_distances_and_figures():
    case = dict(np.load(GOLDEN))
    meta = json.loads(str(case["meta"]))
    query, gallery = (
        Labels(case[f"{split}_ids"], case[f"{split}_cameras"], case[f"{split}_clothes"])
        for split in ("query", "gallery")
    )
    blocks = rerank(
        case["query_features"],
        case["gallery_features"],
        similarity=parts_of(case["query_features"], 1),
        k1=meta["k1"],
        k2=meta["k2"],
        original_weight=meta["rerank_lambda"],
        block=17,
    )
    distances = np.concatenate(list(blocks))
    known = case["reranked_distance"]
    np.testing.assert_allclose(distances[: len(known)], known, rtol=0, atol=1e-6)
    scores = score_from_distances(distances, query, gallery, "general", max_rank=meta["max_rank"])
    assert scores.map == pytest.approx(float(case["reranked_map"]), abs=1e-6)
    np.testing.assert_allclose(scores.cmc, case["reranked_cmc"], rtol=0, atol=1e-6)


def dense(query, gallery, k1, k2, weight):
    """The method with whole matrices and loops."""
    images = np.concatenate([query, gallery])
    return dense_from((2 - 2 * images @ images.T) ** 2, len(query), k1, k2, weight)


def dense_from(distance, queries, k1, k2, weight):
    """The method from the distances of all images to all."""
    total = len(distance)
    distance = distance / distance.max(axis=1, keepdims=True)
    order = np.argsort(distance, axis=1, kind="stable")

    def mutual(i, k):
        return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

    encoding = np.zeros((total, total))
    for i in range(total):
        own = mutual(i, k1)
        expanded = set(own)
        for j in own:
            more = mutual(j, int(np.around(k1 / 2)))
            if len(more & own) > 2 / 3 * len(more):
                expanded |= more
        for j in expanded:
            encoding[i, j] = np.exp(-distance[i, j])
    encoding /= encoding.sum(axis=1, keepdims=True)
    encoding = np.stack([encoding[order[i, :k2]].mean(axis=0) for i in range(total)])
    least = np.minimum(encoding[:queries, None], encoding[None, queries:]).sum(axis=2)
    most = np.maximum(encoding[:queries, None], encoding[None, queries:]).sum(axis=2)
    return (1 - weight) * (1 - least / most) + weight * distance[:queries, queries:]


def people(seed, count, dimension=12):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(8, dimension))[random.integers(0, 8, count)] + random.normal(size=(count, dimension))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (7, 1, 0.0), (5, 9, 0.8), (3, 2, 1.0)])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_equal_the_dense_method(seed, k1, k2, weight):
    images = people(seed, 70)
    query, gallery = images[:15], images[15:]
    expected = dense(query, gallery, k1, k2, weight)
    for block in (1, 8, 100):
        blocks = list(
            rerank(query, gallery, similarity=parts_of(query, 1), k1=k1, k2=k2, original_weight=weight, block=block)
        )
        assert max(map(len, blocks)) <= block
        np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=0, atol=1e-12)


def zeros_reference(query, gallery, parts, k1, k2, weight):
    """Distances re-ranked from mean cosine similarities over all parts, in float64."""
    images = np.concatenate([query, gallery]).reshape(len(query) + len(gallery), parts, -1).astype(np.float64)
    cosines = np.einsum("ipd,jpd->ijp", images, images)
    return dense_from((2 - 2 * cosines.mean(axis=2)) ** 2, len(query), k1, k2, weight)


@pytest.mark.parametrize("stream", ["body", "both"])
def test_reranking_with_zeros_for_missing_faces_takes_means_over_all_parts(stream):
    # Queries are near some gallery images and nearer still to those of their person: sums of cosines tell nothing here.
    query, gallery = made_up.people(20, 10, 1, noise=0.5), made_up.people(80, 10, 2, noise=0.5)
    columns, similarity = dataclasses.replace(made_up.SIMILARITY, missing_face="zeros").views()[stream]
    arguments = query.vectors[:, columns], gallery.vectors[:, columns]
    distances = np.concatenate(list(rerank(*arguments, similarity=similarity, k1=6, k2=3, block=7)))
    expected = zeros_reference(*arguments, similarity.parts, 6, 3, 0.3)
    np.testing.assert_allclose(distances, expected, rtol=0, atol=2e-6)
    original = similarity.distances(*arguments)
    assert original.min() > 0
    assert original.max() <= 4
    labels = [Labels(one.identity, *2 * (np.full(len(one.identity), -1),)) for one in (query, gallery)]
    protocol = Protocol("all", "", "none")
    settings = Reranking(k1=6, k2=3)
    result = evaluate_protocol(protocol, *arguments, *labels, similarity=similarity, reranking=settings)
    figures = score_from_distances(expected, *labels, "none")
    assert result.figures == pytest.approx({"mAP": figures.map, **figures.ranks}, abs=1e-6)


def test_images_without_any_part_are_finite_and_far_from_everything():
    images = people(5, 60).astype(np.float32)
    images[[2, 20, 21, 40]] = 0
    distances = np.concatenate(list(rerank(images[:10], images[10:], similarity=parts_of(images, 1))))
    assert np.isfinite(distances).all()
    absent = [10, 11, 30]
    # Nothing is shared with an image that shows nothing: Jaccard distance 1, and the original one of similarity 0.
    np.testing.assert_allclose(distances[2], 1, atol=1e-6)
    assert (distances[:, absent] >= 0.7).all()


def test_exact_copies_stay_finite_and_nearest():
    images = np.repeat(people(8, 3), 40, axis=0)  # more copies than neighbours
    distances = np.concatenate(list(rerank(images[::40], images, similarity=parts_of(images, 1))))
    np.testing.assert_array_equal(distances.argmin(axis=1), [0, 40, 80])
    assert np.isfinite(distances).all()


def test_more_neighbours_than_images_is_no_error():
    images = people(6, 9)
    distances = np.concatenate(list(rerank(images[:3], images[3:], similarity=parts_of(images, 1))))
    np.testing.assert_allclose(distances, dense(images[:3], images[3:], 20, 6, 0.3), atol=1e-12)


@pytest.mark.parametrize("change", [{"k1": 0}, {"k2": 0}, {"original_weight": 1.5}, {"block": 0}])
def test_bad_parameters_are_refused_at_once(change):
    images = people(7, 4)
    with pytest.raises(InputError, match=f"{next(iter(change.values()))}"):
        rerank(images, images, similarity=parts_of(images, 1), **change)


def test_embeddings_of_another_length_are_refused_at_once():
    with pytest.raises(InputError, match=r"expected \[images, 12\] in both"):
        rerank(people(7, 4), people(7, 4, 16), similarity=parts_of(people(7, 4), 1))


def test_memory_stays_within_what_is_allowed():
    images = people(9, 600, 64).astype(np.float32)
    query, gallery = images[:200], images[200:]
    blocks = {}
    for memory in (6, 8):
        settings = Reranking(memory=memory)
        blocks[memory] = settings.block(query, gallery)
        tracemalloc.start()
        for rows in rerank(query, gallery, similarity=parts_of(query, 1), block=blocks[memory]):
            assert len(rows) <= blocks[memory]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < memory * 2**20
    assert 1 < blocks[6] < blocks[8] < 200


def test_memory_that_is_not_enough_for_one_row_is_refused_with_what_is():
    images = people(9, 3000, 64).astype(np.float32)
    query, gallery = images[:500], images[500:]
    with pytest.raises(
        InputError, match=r"3000 images within 3 MiB .* take (\d+) MiB; set eval.rerank_memory"
    ) as error:
        Reranking(memory=3).block(query, gallery)
    enough = int(str(error.value).split(" take ")[1].split()[0])
    assert Reranking(memory=enough).block(query, gallery) >= 1
    with pytest.raises(InputError):
        Reranking(memory=enough - 1).block(query, gallery)
