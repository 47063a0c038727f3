"""Compares the images of a dataset with its published sizes, by split and identity."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from deskpro_jax.data.build.image_sources import DatasetListing, ImageSource
from deskpro_jax.data.datasets.spec import DatasetSpec, Size
from deskpro_jax.errors import InputError

_SHOWN = 20  # identities listed in a message


def check_sizes(
    spec: DatasetSpec, listing: DatasetListing, allowed: bool, with_val: bool, warn: Callable[[str], None]
) -> None:
    """Compares the splits of a listing with those published.

    Args:
        spec: the dataset.
        listing: its images; differences that are allowed are noted in its origin.
        allowed: whether to go on when there are differences. Prepared folders are another's choice of images: always.
        with_val: whether validation images were added to train.
        warn: is called with differences that are allowed.

    Raises:
        InputError: there are differences; lists them by split and identity.
    """
    lines = differences(spec, listing.sources, with_val)
    if not lines:
        return
    text = f"dataset {spec.name} differs in size from what was published:" + "".join(f"\n  {line}" for line in lines)
    if listing.origin["source"] == "prepared folders":
        warn(text)
        return
    if allowed:
        warn(text)
        listing.origin["size_differences"] = lines
        return
    named = "".join(f"\n  {finding}" for finding in listing.findings)
    strange = f"\n{len(listing.findings)} files have other names or places:{named}" if listing.findings else ""
    raise InputError(
        f"{text}{strange}\nGet the missing images, or build what is there with --allow-different-size "
        "(data.allow_different_size=True)"
    )


def differences(spec: DatasetSpec, sources: Sequence[ImageSource], with_val: bool = False) -> list[str]:
    """Compares images with the published sizes.

    Args:
        spec: the dataset.
        sources: its images.
        with_val: whether validation images were added to train.

    Returns:
        For each split that differs the figures, and below them, indented, which identities are concerned; [] if all is
        as published.
    """
    lines = []
    for size in spec.published_sizes(with_val):
        images = [
            source
            for source in sources
            if source.split in size.splits and (size.camera is None or source.camera == size.camera)
        ]
        counts = Counter(source.identity for source in images)
        tracklets = len({(source.split, source.tracklet) for source in images})
        compared = [(len(images), size.images, "images"), (tracklets, size.tracklets, "tracklets")]
        compared = [row for row in compared if row[1] is not None]
        wrong_people = size.identities is not None and len(counts) != size.identities
        if all(count == published for count, published, _ in compared) and not wrong_people:
            continue
        people = f" of {size.identities:,} identities" if size.identities is not None else ""
        here, there = (" in ".join(f"{row[column]:,} {row[2]}" for row in compared) for column in (0, 1))
        differing = [_by_how_much(*row) for row in compared]
        differing += [_by_how_much(len(counts), size.identities, "identities")] if wrong_people else []
        lines.append(
            f"{size.name or size.split}: {here} of {len(counts):,} identities; published {there}{people} "
            f"({', '.join(differing)})"
        )
        lines.extend(f"  {line}" for line in _identities(spec, size, counts, sources))
    return lines


def _by_how_much(count: int, expected: int | None, what: str) -> str:
    assert expected is not None
    if count == expected:
        return f"as many {what}"
    return f"{abs(count - expected):,} {what} {'missing' if count < expected else 'too many'}"


def _identities(spec: DatasetSpec, size: Size, counts: Counter[int], sources: Sequence[ImageSource]) -> list[str]:
    """Returns lines on the identities of a split that differs."""
    lines: list[str] = []
    if not counts:
        return lines
    if size.identities is not None and len(counts) < size.identities:
        lowest, highest = min(counts), max(counts)
        if absent := sorted(set(range(lowest, highest + 1)) - counts.keys()):
            lines.append(f"identities without images: {_listed(_ranges(absent))} (between {lowest} and {highest})")
    if spec.image_numbers:
        lines.extend(_numbering(size.split, sources))
    if size.split in ("query", "gallery"):
        other = "gallery" if size.split == "query" else "query"
        in_other = {source.identity for source in sources if source.split == other}
        if missing := sorted(counts.keys() - in_other):
            lines.append(f"identities in {size.split} but not in {other}: {_listed(missing)}")
    lines.append(f"images by identity: {_listed([f'{who}: {n}' for who, n in sorted(counts.items())])}")
    return lines


def _numbering(split: str, sources: Sequence[ImageSource]) -> list[str]:
    """Returns the identities whose image numbers have gaps or come twice, as far as the split can be concerned."""
    group = ("train",) if split == "train" else ("query", "gallery")
    numbers: dict[int, list[int]] = defaultdict(list)
    for source in sources:
        if source.split in group:
            numbers[source.identity].append(source.camera)
    gaps, twice = [], []
    for identity, present in sorted(numbers.items()):
        if absent := sorted(set(range(1, max(present) + 1)) - set(present)):
            gaps.append(f"{identity} (without {_listed(_ranges(absent))} of 1 to {max(present)})")
        if repeated := sorted(number for number, times in Counter(present).items() if times > 1):
            twice.append(f"{identity} ({_listed(repeated)})")
    lines = []
    if gaps:
        lines.append(f"identities whose image numbers have gaps in {' and '.join(group)}: {_listed(gaps)}")
    if twice:
        lines.append(f"identities with an image number twice in {' and '.join(group)}: {_listed(twice)}")
    return lines


def _ranges(numbers: Sequence[int]) -> list[str]:
    """Returns ascending numbers as ranges, as 3-9, 12."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]


def _listed(values: Sequence[object]) -> str:
    more = f", ... ({len(values) - _SHOWN:,} more)" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + more
