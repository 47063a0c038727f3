"""Judges all images of a dataset together: counts, the same bytes twice, labels that collide, matches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from data_prep.checking.examine import Examined
from deskpro_jax.data.datasets.protocols import Protocol
from deskpro_jax.data.datasets.spec import DatasetSpec
from deskpro_jax.data.schema import SPLITS
from deskpro_jax.evaluation.matching_rules import Labels, find_junk, find_rule, same_identity
from deskpro_jax.evaluation.protocols import not_applicable, read_cameras, select

TRAIN_AND_TEST, QUERY_AND_GALLERY, WITHIN = "train and test", "query and gallery", "within a split"


class Count(NamedTuple):
    """Numbers of images, labels and parts in a split; outfits are counted within each identity."""

    split: str
    images: int
    identities: int
    cameras: int
    outfits: int
    masks: int
    faces: int
    restored_faces: int


class Duplicate(NamedTuple):
    """Photos with the same bytes.

    Attributes:
        where: TRAIN_AND_TEST, QUERY_AND_GALLERY or WITHIN.
        contradiction: whether photos on one side, train or test, show different people by their labels.
        images: two or more.
    """

    where: str
    contradiction: bool
    images: tuple[Examined, ...]

    def __str__(self) -> str:
        shown = " = ".join(f"{image.name} ({image.split}, identity {image.identity})" for image in self.images)
        return f"{shown}: different people by their labels" if self.contradiction else shown


class Matches(NamedTuple):
    """Whether the labels allow a protocol, and how many queries it counts.

    Attributes:
        protocol: its name.
        queries: how many take part; 0 when it can't be scored.
        counted: how many of them have a correct gallery image left.
        reasons: reason why a query has none -> number of queries.
        problem: why it can't be scored, or "".
    """

    protocol: str
    queries: int
    counted: int
    reasons: dict[str, int]
    problem: str

    def __str__(self) -> str:
        if self.problem:
            return f"{self.protocol}: {self.problem.removeprefix(f'protocol {self.protocol!r}: ')}"
        why = "".join(f"; {count:,} x {reason}" for reason, count in self.reasons.items())
        return f"{self.protocol}: {self.counted:,} of {self.queries:,} queries have a correct gallery image{why}"


def counts(images: Iterable[Examined]) -> list[Count]:
    """Counts images, labels and parts by split; images that can't be used are counted as well."""
    by_split: dict[str, list[Examined]] = {split: [] for split in SPLITS}
    for image in images:
        by_split[image.split].append(image)
    return [
        Count(
            split,
            images=len(members),
            identities=len({image.identity for image in members}),
            cameras=len({image.camera for image in members if image.camera >= 0}),
            outfits=len({(image.identity, image.clothes) for image in members if image.clothes >= 0}),
            masks=sum(image.has_mask for image in members),
            faces=sum(image.has_face for image in members),
            restored_faces=sum(image.has_restored_face for image in members),
        )
        for split, members in by_split.items()
    ]


def duplicates(images: Iterable[Examined]) -> list[Duplicate]:
    """Finds photos with the same bytes; those in train and test come first, then those in query and gallery."""
    by_bytes: dict[str, list[Examined]] = defaultdict(list)
    for image in images:
        if image.sha256 and image.usable:
            by_bytes[image.sha256].append(image)
    results = []
    for same in by_bytes.values():
        if len(same) < 2:
            continue
        splits = {image.split for image in same}
        where = WITHIN
        if "train" in splits and len(splits) > 1:
            where = TRAIN_AND_TEST
        elif len(splits) > 1:
            where = QUERY_AND_GALLERY
        sides = [{i.identity for i in same if (i.split == "train") == train} for train in (True, False)]
        results.append(Duplicate(where, any(len(people) > 1 for people in sides), tuple(same)))
    order = (TRAIN_AND_TEST, QUERY_AND_GALLERY, WITHIN)
    return sorted(results, key=lambda duplicate: order.index(duplicate.where))


def shared_identities(spec: DatasetSpec, images: Iterable[Examined]) -> tuple[list[int], bool]:
    """Returns the identity numbers that train and test share, and whether that means the same people."""
    sides: tuple[set[int], set[int]] = (set(), set())
    for image in images:
        sides[image.split != "train"].add(image.identity)
    return sorted(number for number in sides[0] & sides[1] if number >= 0), spec.identities_across_splits


def repeated_numbers(spec: DatasetSpec, images: Iterable[Examined]) -> list[str]:
    """Returns the image numbers that one person has twice where they should be unique, in words."""
    if not spec.image_numbers:
        return []
    sides: Counter[tuple[bool, int, int]] = Counter((i.split == "train", i.identity, i.camera) for i in images)
    return [
        f"identity {identity}, image number {number} ({'train' if train else 'test'})"
        for (train, identity, number), times in sorted(sides.items())
        if times > 1
    ]


def matches(spec: DatasetSpec, images: Sequence[Examined]) -> list[Matches]:
    """Applies every protocol of a dataset to the labels of the images that can be used."""
    labels = []
    for split in ("query", "gallery"):
        used = (i for i in images if i.split == split and i.usable)
        rows = [(i.identity, i.camera, i.clothes, i.tracklet, i.scale) for i in used]
        labels.append(Labels(*np.array(rows, np.int64).reshape(-1, 5).T))
    return [_match(protocol, *labels) for protocol in spec.protocols]


def _match(protocol: Protocol, query: Labels, gallery: Labels) -> Matches:
    problem = not_applicable(protocol, query, gallery)
    if problem:
        return Matches(protocol.name, 0, 0, {}, problem)
    chosen = select(protocol, query, gallery)
    queries, kept = (
        read_cameras(protocol, labels.take(indices)) for labels, indices in zip((query, gallery), chosen, strict=True)
    )
    _, reasons = find_junk(find_rule(protocol.rule), queries, kept, same_identity(queries, kept))
    total = len(queries.identity)
    return Matches(protocol.name, total, total - sum(reasons.values()), reasons, "")
