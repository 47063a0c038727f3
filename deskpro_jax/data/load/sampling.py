"""Which images make up each training batch: P identities times K images, or a shuffle; by seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deskpro_jax.errors import InputError

SAMPLERS = ("identities", "images")  # values of data.sampler
_FRAMES = 0xF8A3E5  # what the draw of frames folds into its seed


def pieces_of(tracklet: np.ndarray, image_id: Sequence[str], length: int) -> np.ndarray:
    """Cuts tracklets into pieces of frames in a row.

    Args:
        tracklet: [images] number of the tracklet, negative where an image is of none.
        image_id: [images] names, in whose order the frames of a tracklet were taken.
        length: frames of a piece; the last one of a tracklet may be shorter. 0 leaves tracklets whole.

    Returns:
        [images] int64 number of the piece; an image of no tracklet is one by itself.
    """
    order = np.lexsort((np.asarray(image_id), tracklet))
    ordered = tracklet[order]
    start = np.concatenate([[True], (ordered[1:] != ordered[:-1]) | (ordered[1:] < 0)])[: len(order)]
    frame = np.arange(len(order)) - np.maximum.accumulate(np.where(start, np.arange(len(order)), 0))
    pieces = np.empty(len(order), np.int64)
    pieces[order] = np.cumsum(start | (frame % length == 0 if length else False)) - 1
    return pieces


def drawn_frames(pieces: np.ndarray, count: int) -> int:
    """Returns the number of images that `draw_frames` draws, the same in every epoch."""
    return int(np.minimum(np.bincount(pieces), count).sum())


def draw_frames(pieces: np.ndarray, count: int, seed: Sequence[int], epoch: int) -> np.ndarray:
    """Draws frames of every piece of a tracklet for one epoch, each equally likely.

    Args:
        pieces: [images] from `pieces_of`.
        count: frames of a piece; all of it where it has no more.
        seed: non-negative integers; the result depends on nothing else but `epoch`.
        epoch: number of the epoch, from 0.

    Returns:
        [drawn] ascending positions.
    """
    shuffled = np.random.default_rng([*seed, epoch, _FRAMES]).permutation(len(pieces))
    order = shuffled[np.argsort(pieces[shuffled], kind="stable")]
    ordered = pieces[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.sort(order[rank < count])


def steps_per_epoch(examples: int, identities: int, images_per_identity: int) -> int:
    """Returns the number of batches an epoch has, the same in every epoch.

    Args:
        examples: number of images in the split.
        identities: p, identities in a batch.
        images_per_identity: k, images of each.

    Returns:
        As many whole batches as the split has images for, at least one.
    """
    return max(1, examples // (identities * images_per_identity))


def shuffled_batches(images: int, batch: int, seed: Sequence[int], epoch: int) -> np.ndarray:
    """Returns the images of every batch of one epoch of the plain shuffle: each at most once.

    Args:
        images: number of images in the split.
        batch: images of a batch; an incomplete last batch is left out.
        seed: non-negative integers; the result depends on nothing else but `epoch`.
        epoch: number of the epoch, from 0.

    Returns:
        [steps, batch] positions.

    Raises:
        InputError: the split has fewer images than a batch.
    """
    if images < batch:
        raise InputError(
            f"the training split has {images} images, and data.identities times data.images_per_identity asks for"
            f" {batch} different ones in a batch: lower one of them"
        )
    order = np.random.default_rng([*seed, epoch]).permutation(images)
    steps = steps_per_epoch(images, 1, batch)
    return order[: steps * batch].reshape(steps, batch)


def epoch_batches(
    identity: np.ndarray, identities: int, images_per_identity: int, seed: int | Sequence[int], epoch: int
) -> np.ndarray:
    """Returns the images of every batch of one epoch.

    An identity gets batches in proportion to its images, so that over the epochs every image is used about equally
    often. The images of an identity come from shuffled passes over all of them.

    Args:
        identity: [images] identity of each image.
        identities: p, distinct identities in a batch.
        images_per_identity: k images of each, without repetition where the identity has that many.
        seed: one or more non-negative integers; the result depends on nothing else but `epoch`.
        epoch: number of the epoch, from 0.

    Returns:
        [steps, P * K] positions in `identity`; the K images of an identity are neighbours.

    Raises:
        InputError: p or K is below 1, or the split has fewer than P identities.
    """
    if identities < 1 or images_per_identity < 1:
        raise InputError(
            "data.identities and data.images_per_identity must be at least 1, "
            f"but are {identities} and {images_per_identity}"
        )
    values, counts = np.unique(identity, return_counts=True)
    if len(values) < identities:
        raise InputError(
            f"the training split has {len(values)} identities and data.identities asks for {identities} different ones"
            " in a batch: lower data.identities"
        )
    seeds = [seed] if isinstance(seed, int) else list(seed)
    rng = np.random.default_rng([*seeds, epoch])
    steps = steps_per_epoch(len(identity), identities, images_per_identity)

    appearances = _appearances(counts, steps, steps * identities, rng)
    table = _spread(appearances, steps, identities, rng)
    members = np.split(np.argsort(identity, kind="stable"), np.cumsum(counts)[:-1])
    result = np.empty((steps, identities, images_per_identity), np.int64)
    rows, columns = np.nonzero(np.ones_like(table))
    order = np.argsort(table, axis=None, kind="stable")
    starts = np.cumsum(appearances) - appearances
    for position in np.flatnonzero(appearances):
        where = order[starts[position] : starts[position] + appearances[position]]
        groups = _groups(members[position], appearances[position], images_per_identity, rng)
        result[rows[where], columns[where]] = groups
    return result.reshape(steps, identities * images_per_identity)


def _appearances(counts: np.ndarray, steps: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """Divides `total` appearances among identities by their image counts, none above `steps`.

    Systematic sampling in integers: each identity gets its exact fraction rounded down or up, up with the
    probability of the remainder, and the sum is exact.
    """
    result = np.zeros(len(counts), np.int64)
    open_ = np.ones(len(counts), bool)
    while True:  # an identity with more than one per batch is in every batch; the other identities divide the remainder
        left = total - steps * int(np.count_nonzero(~open_))
        over = open_ & (counts * left > steps * counts[open_].sum())
        if not over.any():
            break
        open_ &= ~over
    result[~open_] = steps
    if left > 0:
        shuffled = rng.permutation(np.flatnonzero(open_))
        size = int(counts[open_].sum())
        ends = np.cumsum(counts[shuffled].astype(np.int64)) * left + int(rng.integers(size))
        result[shuffled] = np.diff(ends // size, prepend=0)
    return result


def _spread(appearances: np.ndarray, steps: int, identities: int, rng: np.random.Generator) -> np.ndarray:
    """Puts each identity into as many different batches as it has appearances; returns [steps, P] identities."""
    order = rng.permutation(len(appearances))
    table = np.repeat(order, appearances[order]).reshape(identities, steps)
    # A column holds consecutive runs, so only the identity that runs on from the column before can meet itself.
    for column in range(identities):
        fresh = rng.permutation(table[column])
        if column and table[column, 0] in table[column - 1]:
            straddling = table[column, 0]
            taken = table[column - 1] == straddling
            clash = np.flatnonzero(taken & (fresh == straddling))
            free = rng.permutation(np.flatnonzero(~taken & (fresh != straddling)))[: len(clash)]
            fresh[clash], fresh[free] = fresh[free], fresh[clash]
        table[column] = fresh
    return table.T


def _groups(members: np.ndarray, groups: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts shuffled passes over `members` into [groups, size], no group with a repetition it could avoid."""
    if len(members) < size:
        passes = -(-size // len(members))
        return np.stack(
            [np.concatenate([rng.permutation(members) for _ in range(passes)])[:size] for _ in range(groups)]
        )
    queue = rng.permutation(members)
    result = np.empty((groups, size), np.int64)
    for row in range(groups):
        if len(queue) < size:
            again = rng.permutation(members)
            used = np.isin(again, queue)
            # Images still in the queue go to the end of the next pass, so this group does not get them twice.
            queue = np.concatenate([queue, again[~used], again[used]])
        result[row], queue = queue[:size], queue[size:]
    return result
