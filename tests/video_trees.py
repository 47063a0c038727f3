"""Small video datasets laid out as their authors do: frames by tracklet, the lists that name them, and what they mean.

Oddities on purpose: a tracklet without frames, junk (person -1), numbers written as floats, last lines that belong to
their tracklet, and a query that is no frame of its own gallery.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Frames(NamedTuple):
    """A tracklet: its split, folder, identity, camera, clothes, number, and the names of its frames."""

    split: str
    folder: str
    identity: int
    camera: int
    clothes: int
    tracklet: int
    names: tuple[str, ...]


# Outfits u0_l0, u0_l1 and u1_l0 become 0, 1 and 2. Cameras of session 3 begin after the 12 of the others.
CCVID = (
    Frames("train", "session1/001_01", 1, 1, 0, 0, ("00001", "00002", "00003", "00004", "00005")),
    Frames("train", "session3/001_02", 1, 14, 2, 1, ("00001", "00002")),
    Frames("train", "session1/002_01", 2, 1, 0, 2, ("00001",)),
    Frames("query", "session1/076_01", 76, 1, 0, 0, ("00001", "00002")),
    Frames("query", "session3/077_05", 77, 17, 2, 1, ("00007",)),
    Frames("gallery", "session1/076_02", 76, 2, 0, 2, ("00001", "00002")),
    Frames("gallery", "session2/076_01", 76, 1, 1, 3, ("00001",)),
    Frames("gallery", "session3/076_01", 76, 13, 1, 4, ("00001", "00002", "00003")),
    Frames("gallery", "session1/077_05", 77, 5, 0, 6, ("00001",)),
)
CCVID_LISTS = {
    "train.txt": "session1/001_01\t1\tu0_l0\nsession3/001_02\t1\tu1_l0\nsession1/002_01\t2\tu0_l0\n",
    "query.txt": "session1/076_01 76 u0_l0\nsession3/077_05 77 u1_l0\n",
    # Tracklet 5 has a folder without frames.
    "gallery.txt": "session1/076_02 76 u0_l0\nsession2/076_01 76 u0_l1\nsession3/076_01 76 u0_l1\n"
    "session2/077_03 77 u0_l0\nsession1/077_05 77 u0_l0\n\n",
}


def _mevid(person: int, outfit: int, camera: int, tracklet: int, *frames: int) -> tuple[str, ...]:
    return tuple(f"{person:04d}O{outfit:03d}C{camera:03d}T{tracklet:03d}F{frame:05d}" for frame in frames)


# Cameras 329 and 330 are indoors, 340 and 505 outdoors.
MEVID = (
    Frames("train", "bbox_train/0201", 201, 330, 3, 0, _mevid(201, 3, 330, 4, 0, 1, 2)),
    Frames("train", "bbox_train/0201", 201, 340, 5, 1, _mevid(201, 5, 340, 1, 9)),
    Frames("train", "bbox_train/0003", 3, 329, 1, 3, _mevid(3, 1, 329, 1, 0, 1)),
    Frames("query", "bbox_test/0205", 205, 329, 1, 0, _mevid(205, 1, 329, 1, 0, 1)),
    Frames("gallery", "bbox_test/0205", 205, 330, 2, 1, _mevid(205, 2, 330, 2, 0)),
    Frames("gallery", "bbox_test/0205", 205, 505, 1, 2, _mevid(205, 1, 505, 3, 0, 1)),
    Frames("query", "bbox_test/0206", 206, 505, 4, 3, _mevid(206, 4, 505, 1, 0)),
    Frames("gallery", "bbox_test/0206", 206, 340, 4, 6, _mevid(206, 4, 340, 2, 0)),
)
_JUNK = "0000O000C329T001F00000.jpg\n"
MEVID_LISTS = {
    "train_name.txt": "".join(f"{name}.jpg\n" for tracklet in MEVID[:3] for name in tracklet.names),
    "track_train_info.txt": "0.0 2.0 201.0 3.0 330.0\n3 3 201 5 340\n4 3 3 1 329\n4e0 5.000e+00 3 1 329\n",
    "test_name.txt": "".join(f"{name}.jpg\n" for tracklet in MEVID[3:6] for name in tracklet.names)
    + f"{MEVID[6].names[0]}.jpg\n{_JUNK}{MEVID[7].names[0]}.jpg\n",
    # Row 4 is junk, row 5 is empty.
    "track_test_info.txt": "0 1 205 1 329\n2 2 205 2 330\n3 4 205 1 505\n5 5 206 4 505\n6 6 -1 0 329\n7 6 206 4 340\n"
    "7.0 7.0 206.0 4.0 340.0\n",
    "query_IDX.txt": "0.0\n3\n",
    "test_track_scale.txt": "m\nm\nl\nl\nm\nm\nl\n",
}
MEVID_SCALES = {0: 0, 1: 0, 2: 1, 3: 1, 6: 1}

ROOTS = {"ccvid": "CCVID", "mevid": "mevid"}
TRACKLETS = {"ccvid": CCVID, "mevid": MEVID}
LISTS = {"ccvid": CCVID_LISTS, "mevid": MEVID_LISTS}


def write_lists(name: str, root: Path) -> None:
    """Writes the lists of a dataset, and the folder of its empty tracklet."""
    for file, text in LISTS[name].items():
        (root / ROOTS[name] / file).write_text(text)
    if name == "ccvid":
        (root / "CCVID/session2/077_03").mkdir(parents=True)
