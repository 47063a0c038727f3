"""Evaluation protocols: which queries, gallery and matching rule a dataset is reported under (data, not code)."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

import numpy as np

from deskpro_jax.errors import InputError
from deskpro_jax.matching import Labels, checked_labels, unusable_labels
from deskpro_jax.retrieval import Scores, score


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
    rule: str  # matching rule, a name in deskpro_jax.matching.RULES
    query: Filter = Filter()
    gallery: Filter = Filter()
    first_camera_in_gallery: bool = False  # filters count cameras from the gallery's lowest number instead of from 0
    draws: int = 0  # > 0: single-shot, that many draws of one gallery image an identity; 0: the whole gallery


@dataclasses.dataclass(frozen=True)
class ProtocolResult:
    """The figures of one protocol; of a single-shot protocol their mean and standard deviation over the draws."""

    protocol: Protocol
    figures: dict[str, float]  # "mAP", "R-1", "R-5", "R-10", "R-20"
    deviations: dict[str, float]  # population standard deviation over the draws; empty when there are none
    gallery: int  # images a query is compared with
    scores: tuple[Scores, ...]  # one a draw, or the one of the whole gallery

    def summary(self) -> dict[str, object]:
        """Returns the result without the per-query arrays, ready for JSON; always carries the protocol's name."""
        first = self.scores[0]  # which queries are counted does not depend on the draw unless the rule removes images
        return {
            "protocol": self.protocol.name,
            "description": self.protocol.description,
            "rule": self.protocol.rule,
            **self.figures,
            **({"std": dict(self.deviations), "draws": len(self.scores)} if self.deviations else {}),
            "gallery": self.gallery,
            "queries": first.queries,
            "counted": first.counted,
            "dropped": dict(first.dropped),
        }


_GENERAL = Protocol("general", "images of the query's identity from the query's camera removed", "general")
_CLOTHES_CHANGING = Protocol(
    "cc", "clothes-changing: images of the query's identity from the query's camera or in its clothes removed", "cc"
)
_SYNTHETIC = (_GENERAL, _CLOTHES_CHANGING)
_CELEB = (
    Protocol(
        "image_number",
        "no cameras in this dataset; the whole image number stands in for one, which removes nothing",
        "general",
    ),
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
}


def find_protocols(dataset: str, names: Sequence[str] = ()) -> tuple[Protocol, ...]:
    """Returns the protocols of a dataset, in the order they are reported.

    Args:
      dataset: builder config name, a key of PROTOCOLS.
      names: the protocols wanted; () means all of the dataset's.

    Returns:
      The protocols, in the order of `names` where they are given.

    Raises:
      InputError: the dataset or a protocol is unknown; near matches are named.
    """
    if dataset not in PROTOCOLS:
        raise InputError(f"no protocols for dataset {dataset!r}; {_near(dataset, list(PROTOCOLS))}")
    known = {protocol.name: protocol for protocol in PROTOCOLS[dataset]}
    for name in names:
        if name not in known:
            raise InputError(f"dataset {dataset!r} has no protocol {name!r}; {_near(name, list(known))}")
    return tuple(known[name] for name in names) if names else PROTOCOLS[dataset]


def not_applicable(protocol: Protocol, query: Labels, gallery: Labels) -> str | None:
    """Returns why `protocol` can't be evaluated on these labels (nothing is kept, a label is unknown), or None."""
    query, gallery = checked_labels("query", query), checked_labels("gallery", gallery)
    chosen = []
    for split, labels, wanted in (("query", query, protocol.query), ("gallery", gallery, protocol.gallery)):
        indices = _pass(labels, wanted, _first_camera(protocol, gallery))
        if not len(indices):
            cameras = ", ".join(map(str, np.unique(labels.camera)[:20])) or "none"
            return (
                f"protocol {protocol.name!r} ({protocol.description}) keeps none of the {len(labels.identity)} {split} "
                f"images; their cameras are: {cameras}"
            )
        chosen.append(labels.take(indices))
    problem = unusable_labels(protocol.rule, *chosen)
    return f"protocol {protocol.name!r}: {problem}" if problem else None


def select(protocol: Protocol, query: Labels, gallery: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Selects the images that take part in a protocol, before any single-shot draw.

    Args:
      protocol: the protocol.
      query: labels of the query split, arrays [queries].
      gallery: labels of the gallery split, arrays [gallery images].

    Returns:
      Ascending indices into the query split and into the gallery split.

    Raises:
      InputError: the protocol can't be evaluated on these labels.
    """
    problem = not_applicable(protocol, query, gallery)
    if problem:
        raise InputError(f"{problem}. Check the labels of the dataset or choose another protocol.")
    first = _first_camera(protocol, gallery)
    return _pass(query, protocol.query, first), _pass(gallery, protocol.gallery, first)


def draw_single_shot(identity: np.ndarray, *, seed: int, draw: int) -> np.ndarray:
    """Draws one image of every identity, each image of an identity equally likely.

    Args:
      identity: [images].
      seed: the seed of the evaluation.
      draw: number of the draw, from 0.

    Returns:
      Ascending indices [identities]; the same for the same identities, seed and draw.
    """
    random = np.random.default_rng([seed, draw])
    shuffled = random.permutation(len(identity))
    _, first = np.unique(np.asarray(identity)[shuffled], return_index=True)
    return np.sort(shuffled[first])


def evaluate_protocol(
    protocol: Protocol,
    query: np.ndarray,
    gallery: np.ndarray,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    parts: int,
    seed: int = 0,
    max_rank: int = 50,
    block: int = 256,
) -> ProtocolResult:
    """Scores embeddings of whole query and gallery splits under one protocol.

    Args:
      protocol: the protocol; it selects the images that take part.
      query: embeddings of the query split [queries, parts * dimension].
      gallery: embeddings of the gallery split [gallery images, parts * dimension].
      query_labels: labels of the query split, arrays [queries].
      gallery_labels: labels of the gallery split, arrays [gallery images].
      parts: number of parts in an embedding.
      seed: of the single-shot draws.
      max_rank: length of the CMC curve.
      block: queries ranked at a time.

    Returns:
      ProtocolResult.

    Raises:
      InputError: the protocol can't be evaluated on these labels, or no query has a correct gallery image.
    """
    query_chosen, gallery_chosen = select(protocol, query_labels, gallery_labels)
    if len(query_chosen) < len(query):
        query, query_labels = query[query_chosen], query_labels.take(query_chosen)
    if len(gallery_chosen) < len(gallery):
        gallery, gallery_labels = gallery[gallery_chosen], gallery_labels.take(gallery_chosen)
    draws = [draw_single_shot(gallery_labels.identity, seed=seed, draw=i) for i in range(protocol.draws)]
    galleries = [(gallery[drawn], gallery_labels.take(drawn)) for drawn in draws] or [(gallery, gallery_labels)]
    scores = tuple(
        score(query, kept, query_labels, labels, protocol.rule, parts=parts, max_rank=max_rank, block=block)
        for kept, labels in galleries
    )
    table = [{"mAP": result.map, **result.ranks} for result in scores]
    columns = {name: [row[name] for row in table] for name in table[0]}
    return ProtocolResult(
        protocol=protocol,
        figures={name: float(np.mean(values)) for name, values in columns.items()},
        deviations={name: float(np.std(values)) for name, values in columns.items()} if protocol.draws else {},
        gallery=len(galleries[0][0]),
        scores=scores,
    )


def _first_camera(protocol: Protocol, gallery: Labels) -> int:
    cameras = np.asarray(gallery.camera)
    return int(cameras.min()) if protocol.first_camera_in_gallery and len(cameras) else 0


def _pass(labels: Labels, wanted: Filter, first_camera: int) -> np.ndarray:
    passing = np.ones(len(labels.identity), bool)
    if wanted.cameras is not None:
        passing &= np.isin(np.asarray(labels.camera) - first_camera, wanted.cameras)
    if wanted.clothes is not None:
        passing &= np.isin(labels.clothes, wanted.clothes)
    return np.flatnonzero(passing)


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known)
    return f"did you mean {', '.join(near)}? Known: {', '.join(known)}." if near else f"known: {', '.join(known)}."
