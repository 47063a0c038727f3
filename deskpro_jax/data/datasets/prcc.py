"""PRCC: three cameras; people wear the same clothes in A and B, and others in C."""

from __future__ import annotations

from deskpro_jax.data.datasets.protocols import Filter, Protocol
from deskpro_jax.data.datasets.spec import WITH_C, DatasetSpec, PhotoFolder, Size

_TRAIN = (r"(?P<identity>\d{1,9})/(?P<letter>[ABC])_(?P<frame>[\w-]+)", "PID/A_NAME, PID/B_NAME or PID/C_NAME")
_TEST = r"(?P<identity>\d{1,9})/(?P<frame>[\w-]+)"
_ID = "{identity}_{letter}_{frame}"


def _protocol(name: str, letter: str, clothes: str, camera: int, draws: int) -> Protocol:
    shot = "one random gallery image per identity, mean of ten draws" if draws else "the whole gallery"
    return Protocol(
        name,
        f"queries of camera {letter} ({clothes} clothes) against camera A, {shot}",
        "none",  # the cameras differ anyway
        query=Filter(cameras=(camera,)),
        gallery=Filter(cameras=(0,)),
        first_camera_in_gallery=True,  # the gallery is camera A only, whether files number it 0 or 1
        draws=draws,
    )


SPEC = DatasetSpec(
    "prcc",
    (
        _protocol("cross_clothes_single_shot", "C", "changed", 2, 10),
        _protocol("cross_clothes_multi_shot", "C", "changed", 2, 0),
        _protocol("same_clothes_single_shot", "B", "same", 1, 10),
        _protocol("same_clothes_multi_shot", "B", "same", 1, 0),
    ),
    "https://www.isee-ai.cn/~yangqize/clothing.html",
    camera="0, 1, 2 for A, B, C",
    clothes="0 in A and B, 1 in C; to be compared within one identity",
    folders=(
        PhotoFolder("train", "train", *_TRAIN, _ID),
        PhotoFolder("query", "test", f"(?P<letter>[BC])/{_TEST}", "B/PID/NAME or C/PID/NAME", _ID),
        PhotoFolder("gallery", "test", f"(?P<letter>A)/{_TEST}", "A/PID/NAME", _ID),
    ),
    validation_folders=(PhotoFolder("train", "val", *_TRAIN, f"val_{_ID}"),),
    roots=("rgb", ""),
    letters={"A": (0, 0), "B": (1, 0), "C": (2, 1)},
    prepared=WITH_C._replace(cameras_from_gallery=True),
    sizes=(
        Size("train", 17_896, 150),
        Size("query", 3_873, camera=1, name="query, camera B (same clothes)"),
        Size("query", 3_543, camera=2, name="query, camera C (changed clothes)"),
        Size("gallery", 3_384, 71),
    ),
    validation_images=5_002,
)
