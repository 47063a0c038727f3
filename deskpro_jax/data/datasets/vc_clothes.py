"""VC-Clothes: rendered by a game engine; four cameras, of which 2 and 3 see the same clothes, 3 and 4 others."""

from __future__ import annotations

from deskpro_jax.data.datasets.protocols import Filter, Protocol
from deskpro_jax.data.datasets.spec import DatasetSpec, Size, split_folders


def _protocol(name: str, clothes: str, cameras: tuple[int, int]) -> Protocol:
    first, second = cameras
    return Protocol(
        name,
        f"queries and gallery of cameras {first} and {second} only, between which people {clothes}; images of the "
        "query's identity from the query's camera removed",
        "general",
        query=Filter(cameras=cameras),
        gallery=Filter(cameras=cameras),
    )


SPEC = DatasetSpec(
    "vc_clothes",
    (
        Protocol("all", "all four cameras; images of the query's identity from the query's camera removed", "general"),
        _protocol("same_clothes", "keep their clothes", (2, 3)),
        _protocol("cross_clothes", "change them", (3, 4)),
    ),
    "https://wanfb.github.io/dataset.html",
    camera="the second number; 2 and 3 see the same clothes, 3 and 4 others",
    clothes="the third number; to be compared within one identity",
    folders=split_folders(
        r"(?P<identity>\d{1,9})-(?P<camera>\d{1,9})-(?P<clothes>\d{1,9})-(?P<frame>\d+)",
        "PID-CAM-CLOTHES-N, as in 0001-02-01-04",
    ),
    sizes=(Size("train", 9_449, 256), Size("query", 1_020), Size("gallery", 8_591)),
)
