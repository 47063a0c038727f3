"""The nearest images found block by block are those of the whole similarity matrix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.similarity import equal_parts, similarity
from deskpro_jax.search.exact import nearest
from gallery import PARTS, SIMILARITY, people


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
@pytest.mark.parametrize("k", [1, 20, 300])
def test_blocks_give_what_the_whole_matrix_gives(block: int, k: int) -> None:
    gallery, query = people(200, 30, 0), people(9, 30, 1)
    vectors = gallery.vectors
    found = nearest(query.vectors, (vectors[i : i + block] for i in range(0, 200, block)), k, SIMILARITY)
    near = similarity(query.vectors, vectors, parts=PARTS)
    filled = min(k, 200)
    np.testing.assert_allclose(found.similarity[:, :filled], -np.sort(-near, axis=1)[:, :filled], atol=1e-6)
    for i in range(9):
        np.testing.assert_allclose(near[i, found.rows[i, :filled]], found.similarity[i, :filled], atol=1e-6)
        assert len(set(found.rows[i, :filled])) == filled
    both = query.has_face[:, None] & gallery.has_face[found.rows[:, :filled]]
    np.testing.assert_array_equal(found.shared[:, :filled], np.where(both, PARTS, PARTS // 2))
    assert (found.rows[:, filled:] == -1).all()
    assert (found.similarity[:, filled:] == -np.inf).all()


def test_a_query_without_a_face_is_compared_by_its_body_alone() -> None:
    image, other = np.eye(4, dtype=np.float32)[:2]
    gallery = np.stack([np.tile(other, PARTS), np.r_[np.tile(other, 7), np.tile(image, 7)]])
    without = np.r_[np.zeros(28), np.tile(image, 7)].astype(np.float32)[None]
    found = nearest(without, [gallery], 2, equal_parts(56, {"face": 7, "body": 7}))
    assert found.rows.tolist() == [[1, 0]]
    np.testing.assert_allclose(found.similarity, [[1.0, 0.0]])
    assert found.shared.tolist() == [[7, 7]]


def test_equal_images_keep_the_order_of_the_gallery() -> None:
    vector = np.tile(np.eye(16, dtype=np.float32)[3], PARTS)[None]  # its products are exact
    found = nearest(vector, [np.repeat(vector, 3, axis=0)] * 4, 5, SIMILARITY)
    assert found.rows.tolist() == [[0, 1, 2, 3, 4]]


def test_what_shares_nothing_with_the_query_is_left_out() -> None:
    gallery = people(3, 3, 0, faceless=0).vectors[:, : 7 * 16]  # a face stream alone
    gallery[1] = 0
    face = equal_parts(7 * 16, {"face": 7}, ("face",))
    assert nearest(gallery[:1], [gallery], 3, face).rows.tolist()[0][-1] == -1
    assert (nearest(gallery[1:2], [gallery], 3, face).rows == -1).all()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="k is 0"):
        nearest(np.ones((1, 224)), [np.ones((1, 224))], 0, SIMILARITY)
    with pytest.raises(InputError, match=r"gallery embeddings \(1, 448\); expected \[images, 224\] in both"):
        nearest(np.ones((1, 224)), [np.ones((1, 448))], 1, SIMILARITY)


def test_absent_parts_count_as_zeros_where_the_evaluation_says_so() -> None:
    gallery, query = people(60, 10, 0), people(9, 10, 1)
    found = nearest(query.vectors, [gallery.vectors], 60, replace(SIMILARITY, missing_face="zeros"))
    products = query.vectors @ gallery.vectors.T / PARTS
    for i in range(9):
        np.testing.assert_allclose(found.similarity[i], np.sort(products[i])[::-1], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.similarity[i], products[i, found.rows[i]], rtol=1e-6, atol=1e-7)
    assert products[~query.has_face].max() <= 0.5 + 1e-6
    assert not np.array_equal(found.rows, nearest(query.vectors, [gallery.vectors], 60, SIMILARITY).rows)
