"""The protocols that every dataset is reported under, by name: data alone (docs/evaluation.md says where from)."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

from deskpro_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which images of a split take part; None lets every value pass."""

    cameras: tuple[int, ...] | None = None
    clothes: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One named setting under which scores are reported."""

    name: str
    description: str
    rule: str  # matching rule, a name in deskpro_jax.evaluation.matching_rules.RULES
    query: Filter = Filter()
    gallery: Filter = Filter()
    first_camera_in_gallery: bool = False  # filters count cameras from the gallery's lowest number instead of from 0
    draws: int = 0  # > 0: single-shot, that many draws of one gallery image an identity; 0: the whole gallery
    camera: str = (
        "number"  # how the rule reads camera labels, a name in deskpro_jax.evaluation.matching_rules.CAMERA_READINGS
    )


_GENERAL = Protocol("general", "images of the query's identity from the query's camera removed", "general")
_CLOTHES_CHANGING = Protocol(
    "cc", "clothes-changing: images of the query's identity from the query's camera or in its clothes removed", "cc"
)
_SAME_CLOTHES = Protocol(
    "sc", "same clothes: images of the query's identity from the query's camera or in other clothes removed", "sc"
)
_NONE = Protocol("none", "no image removed", "none")
_SYNTHETIC = (_GENERAL, _CLOTHES_CHANGING)
_CELEB = (
    Protocol(
        "image_number",
        "no cameras in this dataset; the whole image number stands in for one, which removes nothing",
        "general",
    ),
    Protocol(
        "first_digit",
        "no cameras in this dataset; the first digit of the image number stands in for one, as widely copied code has "
        "it, which removes images of the query's identity whose numbers begin alike",
        "general",
        camera="first_digit",
    ),
    dataclasses.replace(_NONE, description="no cameras in this dataset, and no image removed"),
)


def _prcc(name: str, letter: str, clothes: str, camera: int, draws: int) -> Protocol:
    shot = "one random gallery image an identity, mean of ten draws" if draws else "the whole gallery"
    return Protocol(
        name,
        f"queries of camera {letter} ({clothes} clothes) against camera A, {shot}",
        "none",  # the cameras differ anyway
        query=Filter(cameras=(camera,)),
        gallery=Filter(cameras=(0,)),
        first_camera_in_gallery=True,  # the gallery is camera A alone, whether files number it 0 or 1
        draws=draws,
    )


def _vc_clothes(name: str, clothes: str, cameras: tuple[int, int]) -> Protocol:
    first, second = cameras
    return Protocol(
        name,
        f"queries and gallery of cameras {first} and {second} alone, between which people {clothes}; images of the "
        "query's identity from the query's camera removed",
        "general",
        query=Filter(cameras=cameras),
        gallery=Filter(cameras=cameras),
    )


PROTOCOLS: dict[str, tuple[Protocol, ...]] = {
    "synthetic_tiny": _SYNTHETIC,
    "synthetic_small": _SYNTHETIC,
    "synthetic_full": _SYNTHETIC,
    "celeb": _CELEB,
    "celeb_light": _CELEB,
    "prcc": (
        _prcc("cross_clothes_single_shot", "C", "changed", 2, 10),
        _prcc("cross_clothes_multi_shot", "C", "changed", 2, 0),
        _prcc("same_clothes_single_shot", "B", "same", 1, 10),
        _prcc("same_clothes_multi_shot", "B", "same", 1, 0),
    ),
    "ltcc": (_GENERAL, _CLOTHES_CHANGING, _SAME_CLOTHES),
    "vc_clothes": (
        Protocol("all", "all four cameras; images of the query's identity from the query's camera removed", "general"),
        _vc_clothes("same_clothes", "keep their clothes", (2, 3)),
        _vc_clothes("cross_clothes", "change them", (3, 4)),
    ),
    "folder": (_GENERAL, _CLOTHES_CHANGING, _SAME_CLOTHES, _NONE),
}


def find_protocols(dataset: str, names: Sequence[str] = ()) -> tuple[Protocol, ...]:
    """Returns the protocols of a dataset, in the order they are reported.

    Args:
      dataset: builder config name, a key of PROTOCOLS.
      names: the protocols wanted, also several in one text joined by commas; () means all of the dataset's.

    Returns:
      The protocols, in the order of `names` where they are given.

    Raises:
      InputError: the dataset or a protocol is unknown; near matches are named.
    """
    if dataset not in PROTOCOLS:
        raise InputError(f"no protocols for dataset {dataset!r}; {_near(dataset, list(PROTOCOLS))}")
    known = {protocol.name: protocol for protocol in PROTOCOLS[dataset]}
    wanted = list(dict.fromkeys(name.strip() for given in names for name in given.split(",") if name.strip()))
    for name in wanted:
        if name not in known:
            raise InputError(f"dataset {dataset!r} has no protocol {name!r}; {_near(name, list(known))}")
    return tuple(known[name] for name in wanted) if wanted else PROTOCOLS[dataset]


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known)
    return f"did you mean {', '.join(near)}? Known: {', '.join(known)}." if near else f"known: {', '.join(known)}."
