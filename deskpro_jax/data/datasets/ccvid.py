"""CCVID: videos of people from front view in three sessions, in which they change clothes; tracklets are compared."""

from __future__ import annotations

import dataclasses
import re

from deskpro_jax.data.datasets.lists import ListedPhoto, ListReader
from deskpro_jax.data.datasets.protocols import CLOTHES_CHANGING, GENERAL, SAME_CLOTHES, Protocol
from deskpro_jax.data.datasets.spec import DatasetSpec, Size

_LISTS = {"train": "train.txt", "query": "query.txt", "gallery": "gallery.txt"}
_TRACKLET = re.compile(r"session([123])/[^/_]+_(\d{1,9})(?:_[^/]*)?", re.ASCII)
_ROW = "sessionN/PPP_CC PID CLOTHES"
_CAMERAS = 12  # of sessions 1 and 2, after which those of session 3 are numbered


def by_tracklet(protocol: Protocol) -> Protocol:
    """Returns a protocol that compares tracklets in place of images."""
    description = protocol.description.replace("images", "tracklets")
    return dataclasses.replace(protocol, description=f"{description}; mean of a tracklet's frames", by_tracklet=True)


def read_photos(lists: ListReader) -> list[ListedPhoto]:
    """Reads the lists of tracklets; a photo in the folder of a tracklet is one of its frames.

    Train numbers its tracklets from 0; query and gallery are numbered together, the queries first.
    """
    photos: list[ListedPhoto] = []
    tracklets = 0
    for split, name in _LISTS.items():
        if split == "query":
            tracklets = 0
        seen: dict[str, str] = {}
        for row in lists.rows(name, 3, None, _ROW):
            folder, outfit = row.cells[0].rstrip("/"), row.cells[2]
            match, identity = _TRACKLET.fullmatch(folder), lists.number(row, 1, "the identity")
            if match is None:
                lists.wrong(row, f"the tracklet is {folder!r}, expected sessionN/PPP_CC with N 1, 2 or 3")
            elif folder in seen:
                lists.wrong(row, f"{folder} is in {seen[folder]} already")
            elif identity is not None:
                camera = int(match[2]) + _CAMERAS * (match[1] == "3")
                for frame in lists.frames(row, folder):
                    image_id = frame.rpartition(".")[0]
                    photos.append(
                        ListedPhoto(split, frame, image_id, identity, camera, outfit, tracklets, where=row.where)
                    )
            seen.setdefault(folder, row.where)
            tracklets += 1
    return photos


SPEC = DatasetSpec(
    "ccvid",
    tuple(by_tracklet(protocol) for protocol in (GENERAL, CLOTHES_CHANGING, SAME_CLOTHES)),
    "https://github.com/guxinqian/Simple-CCReID",
    camera="the number after the first _ of a tracklet's folder, 12 more in session 3",
    clothes="the third field of a row; to be compared within one identity",
    read_photos=read_photos,
    list_files=tuple(_LISTS.values()),
    roots=("CCVID", ""),
    sizes=(
        Size("train", None, 75, tracklets=948),
        Size("query", None, tracklets=834),
        Size("gallery", None, 151, tracklets=1_074),
    ),
)
