"""DeepChange: seventeen cameras over twelve months; lists give the photos of each split and their tracklets."""

from __future__ import annotations

import re

from deskpro_jax.data.datasets.lists import ListedPhoto, ListReader
from deskpro_jax.data.datasets.protocols import Protocol
from deskpro_jax.data.datasets.spec import DatasetSpec, Size
from deskpro_jax.data.photo_names import SUFFIXES, is_photo_name

_FOLDERS = {"train": "train-set", "query": "test-set-query", "gallery": "test-set-gallery"}
_NAME = re.compile(r"[^\W\d_](\d{1,9})_[^\W\d_](\d{1,9})_([^_.]+)(?:[_.].*)?", re.ASCII)
_ROW = "FILE,TRACKLET"


def list_name(folder: str) -> str:
    """Returns the name of the list beside a folder."""
    return f"{folder}-bbox.txt"


def read_photos(lists: ListReader) -> list[ListedPhoto]:
    """Reads the lists of train, query and gallery; rows that are wrong are noted in `lists`."""
    photos = []
    for split, folder in _FOLDERS.items():
        seen: dict[str, str] = {}
        for row in lists.rows(list_name(folder), 2, ",", _ROW):
            file, stem = row.cells[0], row.cells[0].rpartition(".")[0]
            match = _NAME.fullmatch(stem)
            tracklet = lists.number(row, 1, "the tracklet")
            if match is None or not is_photo_name(file) or "/" in file:
                suffixes = ", ".join(SUFFIXES)
                lists.wrong(row, f"the file is {file!r}, expected PID_CCAM_CLOTHES_... with one of {suffixes}")
            elif stem in seen:
                lists.wrong(row, f"{file} is in {seen[stem]} already")
            elif tracklet is not None:
                labels = (int(match[1]), int(match[2]), match[3], tracklet)
                photos.append(ListedPhoto(split, f"{folder}/{file}", stem, *labels, where=row.where))
            seen.setdefault(stem, row.where)
    return photos


SPEC = DatasetSpec(
    "deepchange",
    (
        Protocol(
            "general",
            "images of the query's identity from the query's tracklet removed; other tracklets of its camera stay",
            "tracklet",
        ),
    ),
    "https://github.com/PengBoXiangShang/deepchange",
    camera="the second field of the name without its letter",
    clothes="the third field of the name; to be compared within one identity",
    read_photos=read_photos,
    list_files=tuple(list_name(folder) for folder in _FOLDERS.values()),
    roots=("DeepChangeDataset", ""),
    sizes=(Size("train", 75_083, 450), Size("query", 17_527), Size("gallery", 62_956), Size("test", 80_483, 521)),
)
