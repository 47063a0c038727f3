"""The sizes that datasets were published with, and how the files that were found differ from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from deskpro_jax.data.build.sources import Source

_SHOWN = 20  # identities listed in a message


class Size(NamedTuple):
    """The published size of a split, or of the images of one camera in it.

    Attributes:
      split: One of `schema.SPLITS`.
      images: Number of images.
      identities: Number of identities; None where it was not published.
      camera: The camera meant; None for all.
      name: What to call it; "" for the split's own name.
    """

    split: str
    images: int
    identities: int | None = None
    camera: int | None = None
    name: str = ""


SIZES: dict[str, tuple[Size, ...]] = {
    "celeb": (Size("train", 20_208, 632), Size("query", 2_972, 420), Size("gallery", 11_006, 420)),
    "celeb_light": (Size("train", 9_021, 490), Size("query", 887, 100), Size("gallery", 934, 100)),
    "prcc": (
        Size("train", 17_896, 150),
        Size("query", 3_873, camera=1, name="query, camera B (same clothes)"),
        Size("query", 3_543, camera=2, name="query, camera C (changed clothes)"),
        Size("gallery", 3_384, 71),
    ),
    "ltcc": (Size("train", 9_576, 77), Size("query", 493), Size("gallery", 7_050, 75)),
    "vc_clothes": (Size("train", 9_449, 256), Size("query", 1_020), Size("gallery", 8_591)),
}
VALIDATION = {"prcc": 5_002}  # images that --with-val adds to train
_NUMBERED = ("celeb", "celeb_light")  # images of an identity are numbered, in the test splits together


def published(dataset: str, with_val: bool = False) -> tuple[Size, ...]:
    """Returns the published sizes of a dataset; () where none are known."""
    sizes = SIZES.get(dataset, ())
    more = VALIDATION.get(dataset, 0) if with_val else 0
    return tuple(size._replace(images=size.images + more) if size.split == "train" else size for size in sizes)


def differences(dataset: str, sources: Sequence[Source], with_val: bool = False) -> list[str]:
    """Compares what was found with the published sizes.

    Args:
      dataset: Name of the dataset.
      sources: The images that were found.
      with_val: Whether validation images were added to train.

    Returns:
      For each split that differs the figures, and below them, indented, what can be told of the identities; [] if all
      is as published.
    """
    lines = []
    for size in published(dataset, with_val):
        images = [
            source
            for source in sources
            if source.split == size.split and (size.camera is None or source.camera == size.camera)
        ]
        counts = Counter(source.identity for source in images)
        wrong_people = size.identities is not None and len(counts) != size.identities
        if len(images) == size.images and not wrong_people:
            continue
        people = f" of {size.identities:,} identities" if size.identities is not None else ""
        lines.append(
            f"{size.name or size.split}: {len(images):,} images of {len(counts):,} identities; published "
            f"{size.images:,} images{people} ({_by_how_much(len(images), size.images, 'images')}"
            + (f", {_by_how_much(len(counts), size.identities, 'identities')}" if wrong_people else "")
            + ")"
        )
        lines.extend(f"  {line}" for line in _identities(dataset, size, counts, sources))
    return lines


def _by_how_much(found: int, expected: int | None, what: str) -> str:
    assert expected is not None
    if found == expected:
        return f"as many {what}"
    return f"{abs(found - expected):,} {what} {'missing' if found < expected else 'too many'}"


def _identities(dataset: str, size: Size, counts: Counter[int], sources: Sequence[Source]) -> list[str]:
    """Returns what is known of the identities of a split that differs."""
    lines: list[str] = []
    if not counts:
        return lines
    if size.identities is not None and len(counts) < size.identities:
        lowest, highest = min(counts), max(counts)
        if absent := sorted(set(range(lowest, highest + 1)) - counts.keys()):
            lines.append(f"identities without images: {_listed(_ranges(absent))} (between {lowest} and {highest})")
    if dataset in _NUMBERED:
        lines.extend(_numbering(size.split, sources))
    if size.split != "train":
        other = "gallery" if size.split == "query" else "query"
        there = {source.identity for source in sources if source.split == other}
        if alone := sorted(counts.keys() - there):
            lines.append(f"identities in {size.split} but not in {other}: {_listed(alone)}")
    lines.append(f"images by identity: {_listed([f'{who}: {n}' for who, n in sorted(counts.items())])}")
    return lines


def _numbering(split: str, sources: Sequence[Source]) -> list[str]:
    """Returns the identities whose image numbers have gaps or come twice, as far as the split can be concerned."""
    group = ("train",) if split == "train" else ("query", "gallery")
    numbers: dict[int, list[int]] = defaultdict(list)
    for source in sources:
        if source.split in group:
            numbers[source.identity].append(source.camera)
    gaps, twice = [], []
    for identity, found in sorted(numbers.items()):
        if absent := sorted(set(range(1, max(found) + 1)) - set(found)):
            gaps.append(f"{identity} (without {_listed(_ranges(absent))} of 1 to {max(found)})")
        if repeated := sorted(number for number, times in Counter(found).items() if times > 1):
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
