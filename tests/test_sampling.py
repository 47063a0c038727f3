"""Batches hold P distinct identities times K images, and every image is used about equally often."""

from __future__ import annotations

import numpy as np
import pytest

from deskpro_jax.data.load import sampling
from deskpro_jax.errors import InputError


def uneven_identities() -> np.ndarray:
    counts = np.random.default_rng(3).integers(1, 40, size=23)
    return np.random.default_rng(4).permutation(np.repeat(np.arange(100, 123), counts))


@pytest.mark.parametrize(("p", "k"), [(2, 2), (5, 6), (23, 3), (4, 1)])
def test_every_batch_holds_p_distinct_identities_with_k_images_each(p: int, k: int) -> None:
    identity = uneven_identities()
    for epoch in range(5):
        batches = sampling.epoch_batches(identity, p, k, 0, epoch)
        assert batches.shape == (sampling.steps_per_epoch(len(identity), p, k), p * k)
        for batch in batches.reshape(-1, p, k):
            found = identity[batch]
            assert (found == found[:, :1]).all()
            assert len(set(found[:, 0])) == p


def test_images_of_a_batch_repeat_only_where_the_identity_has_too_few() -> None:
    identity = uneven_identities()
    size = {value: int((identity == value).sum()) for value in set(identity)}
    for epoch in range(10):
        for batch in sampling.epoch_batches(identity, 6, 5, 1, epoch).reshape(-1, 5):
            assert len(set(batch)) == min(5, size[identity[batch[0]]])


def test_images_are_used_about_equally_often_over_epochs() -> None:
    identity = uneven_identities()
    epochs = 400
    use = np.zeros(len(identity))
    for epoch in range(epochs):
        use += np.bincount(sampling.epoch_batches(identity, 4, 3, 7, epoch).ravel(), minlength=len(identity))
    assert use.sum() == epochs * (len(identity) // 12) * 12
    assert use.min() > 0.8 * use.mean()
    assert use.max() < 1.2 * use.mean()


def test_an_identity_with_most_of_the_images_is_once_in_every_batch() -> None:
    identity = np.repeat([0, 1, 2], [100, 4, 4])
    batches = sampling.epoch_batches(identity, 2, 3, 0, 0).reshape(-1, 2, 3)
    assert ((identity[batches] == 0).all(axis=2).sum(axis=1) == 1).all()


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    identity = uneven_identities()
    first = sampling.epoch_batches(identity, 4, 3, 7, 2)
    assert np.array_equal(first, sampling.epoch_batches(identity, 4, 3, [7], 2))
    assert not np.array_equal(first, sampling.epoch_batches(identity, 4, 3, 7, 3))
    assert not np.array_equal(first, sampling.epoch_batches(identity, 4, 3, 8, 2))


def test_which_identities_meet_changes_between_batches() -> None:
    identity = np.repeat(np.arange(10), 30)
    batches = identity[sampling.epoch_batches(identity, 3, 2, 0, 0)][:, ::2]
    meetings = {tuple(sorted(batch)) for batch in batches}
    assert len(meetings) > len(batches) / 2


def test_a_split_smaller_than_a_batch_still_gives_one() -> None:
    batches = sampling.epoch_batches(np.array([5, 5, 9]), 2, 4, 0, 0)
    assert batches.shape == (1, 8)
    assert set(batches[0]) == {0, 1, 2}


def test_too_few_identities_is_an_error_that_names_the_field() -> None:
    with pytest.raises(InputError, match=r"2 identities and data.identities asks for 3"):
        sampling.epoch_batches(np.array([1, 1, 2, 2]), 3, 2, 0, 0)
    with pytest.raises(InputError, match="at least 1"):
        sampling.epoch_batches(np.array([1, 1, 2, 2]), 0, 2, 0, 0)


def test_the_plain_shuffle_takes_every_image_at_most_once_and_leaves_the_incomplete_batch_out() -> None:
    batches = sampling.shuffled_batches(23, 5, [0], 0)
    assert batches.shape == (4, 5)
    assert len(set(batches.ravel())) == 20
    assert set(batches.ravel()) <= set(range(23))
    assert np.array_equal(batches, sampling.shuffled_batches(23, 5, [0], 0))
    for seed, epoch in ((0, 1), (1, 0)):
        assert not np.array_equal(batches, sampling.shuffled_batches(23, 5, [seed], epoch))
    with pytest.raises(InputError, match=r"has 4 images, and data\.identities times .* asks for 5"):
        sampling.shuffled_batches(4, 5, [0], 0)


def test_tracklets_are_cut_into_pieces_of_frames_in_a_row() -> None:
    # Tracklet 7 has frames a to e in mixed order, tracklet 2 has two; the last two photos are of none.
    tracklet = np.array([7, 2, 7, 7, 2, 7, 7, -1, -1])
    names = ["c", "x", "a", "e", "y", "b", "d", "p", "q"]
    pieces = sampling.pieces_of(tracklet, names, 2)
    groups = {frozenset(np.array(names)[pieces == piece].tolist()) for piece in np.unique(pieces)}
    assert groups == {frozenset(group) for group in ("ab", "cd", "e", "xy", "p", "q")}
    whole = sampling.pieces_of(tracklet, names, 0)
    groups = {frozenset(np.array(names)[whole == piece].tolist()) for piece in np.unique(whole)}
    assert groups == {frozenset(group) for group in ("abcde", "xy", "p", "q")}
    assert len(sampling.pieces_of(np.array([], int), [], 3)) == 0


def test_every_epoch_draws_so_many_frames_of_a_piece_and_all_of_them_in_time() -> None:
    pieces = np.array([0] * 10 + [1] * 2 + [2] * 3)
    drawn = [sampling.draw_frames(pieces, 3, (0,), epoch) for epoch in range(40)]
    for positions in drawn:
        assert np.bincount(pieces[positions]).tolist() == [3, 2, 3]
        assert len(positions) == sampling.drawn_frames(pieces, 3) == 8
    assert set(np.concatenate(drawn).tolist()) == set(range(15))
    counts = np.bincount(np.concatenate(drawn))[:10]
    assert counts.min() >= 4  # 12 on average
    np.testing.assert_array_equal(sampling.draw_frames(pieces, 3, (0,), 5), drawn[5])
    assert not np.array_equal(drawn[0], drawn[1])
