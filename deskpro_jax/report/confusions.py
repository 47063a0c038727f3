"""The hardest confusions: different people who look alike, people taken for one another, matches that are missed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deskpro_jax.report.view import Block, View

_SPARE = 4  # candidates kept for each one listed, since a pair of people is listed once


class Look(NamedTuple):
    """A query and a gallery image, by their positions in the splits."""

    query: int
    gallery: int
    similarity: float


class Confused(NamedTuple):
    """Two people of whom one comes first in the other's rankings.

    Attributes:
        people: both identities, ascending; -1 is somebody unknown.
        wrong: their queries whose first gallery image shows the other.
        queries: their counted queries.
        example: the wrong first image with the highest similarity.
    """

    people: tuple[int, int]
    wrong: int
    queries: int
    example: Look


class Missed(NamedTuple):
    """A right gallery image that is far down in the query's ranking, at `rank` (from 1) of `gallery` images."""

    look: Look
    rank: int
    gallery: int


class Confusions(NamedTuple):
    """What a stream confuses under a protocol.

    Attributes:
        alike: pairs of images of different people with the highest similarity, one for each two people.
        people: two people, most often taken for one another first.
        missed: right matches with the lowest similarity, one for each person.
        wrong_first: counted queries whose first gallery image is wrong.
        counted: counted queries.
    """

    alike: list[Look]
    people: list[Confused]
    missed: list[Missed]
    wrong_first: int
    counted: int


class _Collected:
    """The confusions of the blocks so far, in positions of the view."""

    def __init__(self) -> None:
        self.alike: dict[tuple[int, int], Look] = {}
        self.wrong: dict[tuple[int, int], list[Look]] = {}
        self.missed: dict[int, Missed] = {}
        self.counted: dict[int, int] = {}


def find_confusions(view: View, count: int) -> Confusions:
    """Compares every query of a known person with the gallery, a block at a time.

    Args:
        view: stream and protocol.
        count: entries of each list, at most.

    Returns:
        Confusions; positions are those of the splits.
    """
    identity = np.asarray(view.query_labels.identity)
    order = np.argsort(identity, kind="stable")  # a person's queries together, so that most end within one block
    order = order[identity[order] >= 0]
    gallery = np.asarray(view.gallery_labels.identity)
    columns = np.argsort(gallery, kind="stable")
    starts = np.flatnonzero(np.diff(gallery[columns], prepend=gallery[columns[0]] - 1))
    collected = _Collected()
    for block in view.blocks(order):
        ranked, different = block.similarity.copy(), block.similarity.copy()
        ranked[block.pairs.query[block.junk], block.pairs.gallery[block.junk]] = -np.inf
        different[block.pairs.query, block.pairs.gallery] = -np.inf
        _alike(collected.alike, view, block.rows, different, columns, starts, count * _SPARE)
        _first(collected, view, block, ranked)
        _missed(collected.missed, view, block, ranked)
    return _summary(collected, view, count)


def _alike(
    collected: dict[tuple[int, int], Look],
    view: View,
    rows: np.ndarray,
    different: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
    count: int,
) -> None:
    """Takes over the pairs of people with the highest similarity of a block."""
    people = view.query_labels.identity[rows]
    tops = np.flatnonzero(np.diff(people, prepend=people[0] - 1))
    best = np.maximum.reduceat(np.maximum.reduceat(different[:, columns], starts, axis=1), tops, axis=0)
    flat = best.ravel()
    keep = min(count, len(flat))
    for at in np.argpartition(-flat, keep - 1)[:keep] if keep else ():
        value = float(flat[at])
        if not np.isfinite(value):
            continue
        group, other = divmod(int(at), best.shape[1])
        last = tops[group + 1] if group + 1 < len(tops) else len(rows)
        end = starts[other + 1] if other + 1 < len(starts) else len(columns)
        inside = different[tops[group] : last, columns[starts[other] : end]]
        i, j = np.unravel_index(int(inside.argmax()), inside.shape)
        column = columns[starts[other] + j]
        two = _two(int(people[tops[group]]), int(view.gallery_labels.identity[column]))
        if two not in collected or collected[two].similarity < value:
            collected[two] = Look(int(rows[tops[group] + i]), int(column), value)
    for two in sorted(collected, key=lambda key: -collected[key].similarity)[count:]:
        del collected[two]


def _first(collected: _Collected, view: View, block: Block, ranked: np.ndarray) -> None:
    """Takes over which counted queries of a block have somebody else first."""
    kept = ~block.junk
    counted = np.bincount(block.pairs.query[kept], minlength=len(block.rows)) > 0
    first = ranked.argmax(axis=1)
    for i in np.flatnonzero(counted):
        row, column = int(block.rows[i]), int(first[i])
        own, other = int(view.query_labels.identity[row]), int(view.gallery_labels.identity[column])
        collected.counted[own] = collected.counted.get(own, 0) + 1
        if own != other:
            collected.wrong.setdefault(_two(own, other), []).append(Look(row, column, float(ranked[i, column])))


def _missed(collected: dict[int, Missed], view: View, block: Block, ranked: np.ndarray) -> None:
    """Takes over each person's right match with the lowest similarity, where the block has a lower one."""
    kept = ~block.junk
    at, column = block.pairs.query[kept], block.pairs.gallery[kept]
    value = ranked[at, column]
    for k in np.lexsort((value, view.query_labels.identity[block.rows[at]])):
        person = int(view.query_labels.identity[block.rows[at[k]]])
        if person in collected and collected[person].look.similarity <= value[k]:
            continue
        line = ranked[at[k]]
        before = np.count_nonzero(line > value[k]) + np.count_nonzero(line[: column[k]] == value[k])
        look = Look(int(block.rows[at[k]]), int(column[k]), float(value[k]))
        collected[person] = Missed(look, int(before) + 1, int(np.isfinite(line).sum()))


def _summary(collected: _Collected, view: View, count: int) -> Confusions:
    def in_splits(look: Look) -> Look:
        return look._replace(query=int(view.query_index[look.query]), gallery=int(view.gallery_index[look.gallery]))

    alike = sorted(collected.alike.values(), key=lambda look: -look.similarity)[:count]
    people = []
    for two, looks in collected.wrong.items():
        queries = sum(collected.counted.get(person, 0) for person in two)
        example = max(looks, key=lambda look: look.similarity)
        people.append(Confused(two, len(looks), queries, in_splits(example)))
    people.sort(key=lambda one: (-one.wrong, -one.wrong / one.queries, one.people))
    missed = sorted(collected.missed.values(), key=lambda one: one.look.similarity)[:count]
    return Confusions(
        [in_splits(look) for look in alike],
        people[:count],
        [one._replace(look=in_splits(one.look)) for one in missed],
        sum(len(looks) for looks in collected.wrong.values()),
        sum(collected.counted.values()),
    )


def _two(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)
