"""Approximate search finds nearly what exact search finds, with and without faces, and knows its gallery."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from deskpro_jax.embedding.embedding_set import EmbeddingSet, settings_of
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.search import approximate, pca
from deskpro_jax.search.approximate import GalleryIndex, build_index, open_index
from deskpro_jax.search.exact import Neighbours, nearest
from deskpro_jax.search.thresholds import calibrate
from gallery import SIMILARITY, people, write

GALLERY, QUERY = people(3000, 300, 0), people(60, 300, 1)
K = 10


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingSet:
    return EmbeddingSet(write(GALLERY, tmp_path_factory.mktemp("gallery") / "e.npy", part=1000))


@pytest.fixture(scope="module")
def exact(gallery: EmbeddingSet) -> Neighbours:
    return nearest(QUERY.vectors, gallery.blocks(), K, SIMILARITY)


@pytest.fixture(scope="module", params=["ivf", "hnsw"])
def index(request: pytest.FixtureRequest, gallery: EmbeddingSet) -> GalleryIndex:
    return build_index(gallery, request.param)


def recall(found: Neighbours, exact: Neighbours, of: np.ndarray) -> float:
    pairs = zip(found.rows[of], exact.rows[of], strict=True)
    return float(np.mean([len(set(a) & set(b)) / K for a, b in pairs]))


def test_recall_is_high_with_and_without_a_face(index: GalleryIndex, exact: Neighbours) -> None:
    found = index.search(QUERY.vectors, K)
    for of in (QUERY.has_face, ~QUERY.has_face):
        assert of.sum() > 5
        assert recall(found, exact, of) > 0.9
    same = found.rows == exact.rows
    np.testing.assert_allclose(found.similarity[same], exact.similarity[same], atol=2e-3)  # vectors in float16
    np.testing.assert_array_equal(found.shared[same], exact.shared[same])


def test_more_effort_finds_everything(index: GalleryIndex, exact: Neighbours) -> None:
    everyone = np.ones(len(QUERY.identity), bool)
    most, least = (recall(index.search(QUERY.vectors, K, effort), exact, everyone) for effort in (10_000, 1))
    assert most > 0.99
    assert least < most


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_absent_faces_count_as_zeros_where_the_evaluation_says_so(tmp_path: Path, method: str) -> None:
    few = EmbeddingSet(write(people(400, 40, 0), tmp_path / "few.npy", missing_face="zeros"))
    expected = nearest(QUERY.vectors, few.blocks(), K, few.similarity)
    found = build_index(few, method).search(QUERY.vectors, K, 400)
    assert recall(found, expected, np.ones(len(QUERY.identity), bool)) > 0.99
    same = found.rows == expected.rows
    np.testing.assert_allclose(found.similarity[same], expected.similarity[same], atol=2e-3)
    assert found.similarity[~QUERY.has_face].max() <= 0.5 + 2e-3


def test_long_vectors_are_found_by_their_pca_projections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (approximate, pca):
        monkeypatch.setattr(module, "PROJECTED", 24)  # of 224 and 112 dimensions
    gallery = EmbeddingSet(write(people(900, 90, 0), tmp_path / "e.npy", part=500))
    expected = nearest(QUERY.vectors, gallery.blocks(), K, SIMILARITY)
    everyone = np.ones(len(QUERY.identity), bool)
    for method in approximate.METHODS:
        built = build_index(gallery, method, tmp_path / method)
        assert [group.directions.shape[1] for group in built.groups] == [24, 24]
        assert recall(built.search(QUERY.vectors, K), expected, everyone) > 0.95
        again = open_index(gallery, tmp_path / method).search(QUERY.vectors, K)
        np.testing.assert_array_equal(again.rows, built.search(QUERY.vectors, K).rows)


def test_an_index_on_disk_finds_the_same(index: GalleryIndex, gallery: EmbeddingSet, tmp_path: Path) -> None:
    build_index(gallery, "ivf", tmp_path / "kept")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept"]
    kept = open_index(gallery, tmp_path / "kept")
    assert kept.method == "ivf"
    again = build_index(gallery, "ivf").search(QUERY.vectors, K)
    np.testing.assert_array_equal(kept.search(QUERY.vectors, K).rows, again.rows)


def test_a_small_gallery_gives_all_it_has(tmp_path: Path) -> None:
    few = EmbeddingSet(write(people(5, 5, 0), tmp_path / "few.npy"))
    for method in ("ivf", "hnsw"):
        found = build_index(few, method).search(QUERY.vectors[:3], K)
        assert np.sort(found.rows[:, :5]).tolist() == [[0, 1, 2, 3, 4]] * 3
        assert (found.rows[:, 5:] == -1).all()


def test_an_empty_gallery_has_no_index(tmp_path: Path) -> None:
    drawn = people(3, 3, 0)
    drawn.vectors[:] = 0
    with pytest.raises(InputError, match="no embedding that could be searched"):
        build_index(EmbeddingSet(write(drawn, tmp_path / "zeros.npy")), "ivf")


def test_the_index_of_another_gallery_is_refused(gallery: EmbeddingSet, tmp_path: Path) -> None:
    few = EmbeddingSet(write(people(50, 5, 0), tmp_path / "few.npy"))
    build_index(few, "hnsw", tmp_path / "index")
    with pytest.raises(InputError, match="of another gallery"):
        open_index(gallery, tmp_path / "index")
    with pytest.raises(InputError, match="already exists"):
        build_index(few, "hnsw", tmp_path / "index")
    with pytest.raises(MissingInputError, match="no index at"):
        open_index(few, tmp_path / "absent")
    file = tmp_path / "index" / "0.faiss"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"):
        open_index(few, tmp_path / "index")


def test_without_faiss_it_says_what_to_install(gallery: EmbeddingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install 'deskpro_jax\[faiss\]'"):
        build_index(gallery, "ivf")


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_weights_of_parts_count_in_an_index_as_in_exact_search(tmp_path: Path, method: str) -> None:
    weights = tuple(float(w) for w in np.linspace(0.1, 3, 7))
    streams = (dataclasses.replace(SIMILARITY.streams[0]), dataclasses.replace(SIMILARITY.streams[1], weights=weights))
    weighted = dataclasses.replace(SIMILARITY, streams=streams)
    few = EmbeddingSet(write(people(400, 40, 0), tmp_path / "few.npy", **settings_of(weighted)))
    assert few.similarity == weighted
    expected = nearest(QUERY.vectors, few.blocks(), K, weighted)
    plain = nearest(QUERY.vectors, few.blocks(), K, SIMILARITY)
    found = build_index(few, method).search(QUERY.vectors, K, 400)
    everyone = np.ones(len(QUERY.identity), bool)
    assert recall(plain, expected, everyone) < 0.97
    assert recall(found, expected, everyone) > 0.99
    same = found.rows == expected.rows
    np.testing.assert_allclose(found.similarity[same], expected.similarity[same], atol=2e-3)


def test_thresholds_are_on_the_scale_of_weighted_similarities(tmp_path: Path) -> None:
    weights = (0.1,) * 6 + (5.0,)
    streams = tuple(dataclasses.replace(stream, weights=weights) for stream in SIMILARITY.streams)
    weighted = dataclasses.replace(SIMILARITY, streams=streams)
    drawn = people(300, 30, 2, noise=0.6, faceless=0)
    labelled = EmbeddingSet(write(drawn, tmp_path / "e.npy", **settings_of(weighted)))
    limit = calibrate(labelled, 0.05).by_streams["face and body"].similarity
    values = weighted.between(drawn.vectors, drawn.vectors)
    different = values[np.triu(drawn.identity[:, None] != drawn.identity[None])]
    assert (different >= limit).mean() == pytest.approx(0.05, abs=1e-3)
