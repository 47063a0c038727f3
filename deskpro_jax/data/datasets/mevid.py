"""MEVID: videos of people by indoor and outdoor cameras over days, in many outfits; tracklets are compared."""

from __future__ import annotations

import re
from collections.abc import Sequence

from deskpro_jax.data.datasets.ccvid import by_tracklet
from deskpro_jax.data.datasets.lists import ListedPhoto, ListReader, ListRow
from deskpro_jax.data.datasets.protocols import CLOTHES_CHANGING, GENERAL, SAME_CLOTHES, Protocol
from deskpro_jax.data.datasets.spec import DatasetSpec, Size
from deskpro_jax.data.photo_names import is_photo_name

_FOLDERS = {"train": "bbox_train", "test": "bbox_test"}
_QUERIES = "query_IDX.txt"
_SCALES_FILE = "test_track_scale.txt"  # not in every copy; without it the protocols of scales are left out
_SCALES = {"m": 0, "l": 1}
_TRACKLET = "five numbers: first line, last line, person, outfit, camera"
_JUNK = -1  # the person of tracklets that loaders leave out
INDOOR, OUTDOOR = (329, 330, 507, 508, 509), (301, 336, 340, 436, 505, 639)


def read_photos(lists: ListReader) -> list[ListedPhoto]:
    """Reads names, tracklets and queries; a tracklet has the number of its row in its list, from 0."""
    photos = _photos(lists, "train", {}, {})
    rows = sum(1 for _ in lists.rows("track_test_info.txt", 5, None, _TRACKLET))
    return photos + _photos(lists, "test", _queries(lists, rows), _scales(lists, rows))


def _photos(lists: ListReader, side: str, queries: dict[int, ListRow], scales: dict[int, int]) -> list[ListedPhoto]:
    names = _names(lists, f"{side}_name.txt")
    photos: list[ListedPhoto] = []
    empty: list[str] = []
    junk: list[str] = []
    for tracklet, row in enumerate(lists.rows(f"track_{side}_info.txt", 5, None, _TRACKLET)):
        first, last = lists.number(row, 0, "the first line"), lists.number(row, 1, "the last line", -1)
        person, outfit = lists.number(row, 2, "the person", _JUNK), lists.number(row, 3, "the outfit")
        camera = lists.number(row, 4, "the camera")
        if first is None or last is None or person is None or outfit is None or camera is None:
            continue
        if person == _JUNK:
            junk.append(row.where)
            continue
        if last < first:
            empty.append(row.where)
            continue
        if last >= len(names):
            lists.wrong(row, f"lines {first} to {last} of {side}_name.txt, which has lines 0 to {len(names) - 1}")
            continue
        frames = names[first : last + 1]
        people = sorted({name[:4] for name in frames if name})
        if len(people) != 1:
            lists.wrong(row, f"lines {first} to {last} of {side}_name.txt are of several people: {', '.join(people)}")
            continue
        split = side if side == "train" else "query" if tracklet in queries else "gallery"
        for name in frames:
            path = f"{_FOLDERS[side]}/{name[:4]}/{name}"
            labels = (person, camera, str(outfit), tracklet, scales.get(tracklet, -1))
            photos.append(ListedPhoto(split, path, name.rpartition(".")[0], *labels, row.where))
    for rows, what in ((empty, "without frames"), (junk, f"of person {_JUNK} (junk)")):
        if rows:
            lists.notes.append(f"{len(rows):,} tracklets {what} left out, as {rows[0]}")
    return photos


def _names(lists: ListReader, file: str) -> list[str]:
    """Returns the file names of a list by line, "" where one is wrong."""
    names = []
    for row in lists.rows(file, 1, None, "a file name"):
        name = row.cells[0]
        is_name = re.fullmatch(r"\d{4}[^/\\]*", name, re.ASCII) is not None and is_photo_name(name)
        if not is_name:
            lists.wrong(row, f"the file is {name!r}, expected a name like 0201O003C330T004F00192.jpg")
        names.append(name if is_name else "")
    return names


def _queries(lists: ListReader, tracklets: int) -> dict[int, ListRow]:
    """Returns the rows of the test's tracklets that are queries."""
    queries: dict[int, ListRow] = {}
    for row in lists.rows(_QUERIES, 1, None, "the number of a row of track_test_info.txt"):
        number = lists.number(row, 0, "the row of track_test_info.txt")
        if number is None:
            continue
        if number >= tracklets:
            lists.wrong(row, f"row {number} of track_test_info.txt, which has rows 0 to {tracklets - 1}")
        elif number in queries:
            lists.wrong(row, f"row {number} is in {queries[number].where} already")
        queries.setdefault(number, row)
    return queries


def _scales(lists: ListReader, tracklets: int) -> dict[int, int]:
    """Returns the scale of each tracklet of the test; {} where the list is missing."""
    if not (lists.root / _SCALES_FILE).is_file():
        lists.notes.append(f"{lists.root / _SCALES_FILE} is missing: the protocols of scales cannot be scored")
        return {}
    rows = list(lists.rows(_SCALES_FILE, None, None, "m or l"))
    for row in rows:
        if row.cells[-1] not in _SCALES:
            lists.wrong(row, f"the scale is {row.cells[-1]!r}, expected {' or '.join(_SCALES)}")
    if len(rows) != tracklets and not lists.errors:
        file, there = lists.root / _SCALES_FILE, f"track_test_info.txt has {tracklets:,}"
        lists.errors.append(f"{file}: has {len(rows):,} rows, {there}")
    return {number: _SCALES.get(row.cells[-1], -1) for number, row in enumerate(rows)}


def _protocols() -> Sequence[Protocol]:
    kinds = (
        ("same_location", "at another location", "locations are indoors and outdoors"),
        ("other_location", "at its location", "locations are indoors and outdoors"),
        ("same_scale", "of another scale", "scales are medium and large"),
        ("other_scale", "of its scale", "scales are medium and large"),
    )
    removed = "images of the query's identity from the query's camera or {} removed; {}"
    further = (
        Protocol(rule, removed.format(other, meaning), rule, locations=(INDOOR, OUTDOOR))
        for rule, other, meaning in kinds
    )
    return [by_tracklet(protocol) for protocol in (GENERAL, CLOTHES_CHANGING, SAME_CLOTHES, *further)]


SPEC = DatasetSpec(
    "mevid",
    tuple(_protocols()),
    "https://github.com/Kitware/MEVID",
    camera="as the list of tracklets says",
    clothes="the outfit as the list of tracklets says; to be compared within one identity",
    read_photos=read_photos,
    list_files=(
        *(name.format(side) for side in _FOLDERS for name in ("{}_name.txt", "track_{}_info.txt")),
        _QUERIES,
    ),
    roots=("mevid", ""),
    # Tracklets as the lists have them; the paper counts one more in train and in test.
    sizes=(Size("train", None, 104, tracklets=6_337), Size("test", None, 53, tracklets=1_753)),
)
