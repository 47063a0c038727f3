"""Applies protocols: which images take part, why one cannot be scored, single-shot draws, figures and deviations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from deskpro_jax.data.datasets.find import find_protocols
from deskpro_jax.data.datasets.protocols import Filter, Protocol
from deskpro_jax.data.schema import JUNK
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.matching_rules import (
    CAMERA_READINGS,
    UNKNOWN,
    Labels,
    checked_labels,
    no_valid_query,
    unusable_labels,
)
from deskpro_jax.evaluation.ranking import AVERAGE_PRECISIONS, Scores, score, score_from_distances
from deskpro_jax.evaluation.reranking import Reranking, rerank
from deskpro_jax.evaluation.similarity import Similarity
from deskpro_jax.evaluation.tracklets import first_images, mean_embeddings, unusable_tracklets

__all__ = [
    "RERANKED",
    "Filter",
    "Protocol",
    "ProtocolResult",
    "applicable",
    "draw_single_shot",
    "evaluate_protocol",
    "find_protocols",
    "not_applicable",
    "read_cameras",
    "select",
    "take_embeddings",
]

RERANKED = "_reranked"  # ends the name of a protocol whose rankings were re-ranked


@dataclasses.dataclass(frozen=True)
class ProtocolResult:
    """The figures of one protocol; of a single-shot protocol their mean and standard deviation over the draws."""

    protocol: Protocol
    figures: dict[str, float]  # "mAP", "R-1", "R-5", "R-10", "R-20"
    deviations: dict[str, float]  # population standard deviation over the draws; empty when there are none
    gallery: int  # images (or tracklets) a query is compared with
    scores: tuple[Scores, ...]  # one a draw, or the one of the whole gallery
    reranking: Reranking | None = None

    def summary(self) -> dict[str, object]:
        """Returns the result without the per-query arrays, ready for JSON; always carries the protocol's name."""
        first = self.scores[0]  # which queries are counted does not depend on the draw unless the rule removes images
        return {
            "protocol": self.protocol.name,
            "description": self.protocol.description,
            "rule": self.protocol.rule,
            **({"rerank": self.reranking.parameters()} if self.reranking else {}),
            **self.figures,
            **({} if first.integration == AVERAGE_PRECISIONS[0] else {"average_precision": first.integration}),
            **({"std": dict(self.deviations), "draws": len(self.scores)} if self.deviations else {}),
            "gallery": self.gallery,
            "queries": first.queries,
            "counted": first.counted,
            "dropped": dict(first.dropped),
        }


def not_applicable(protocol: Protocol, query: Labels, gallery: Labels) -> str | None:
    """Returns why `protocol` can't be scored on these labels, or None where it can.

    Either it keeps no image, or its rule compares a label that is unknown, or the rule leaves no query a correct image.
    """
    query, gallery = checked_labels("query", query), checked_labels("gallery", gallery)
    chosen = []
    for split, labels, filter_ in (("query", query, protocol.query), ("gallery", gallery, protocol.gallery)):
        if protocol.by_tracklet and (problem := unusable_tracklets(split, labels)):
            return f"protocol {protocol.name!r} compares tracklets, but {problem}"
        indices = _pass(protocol, labels, filter_, _first_camera(protocol, gallery))
        if not len(indices):
            cameras = ", ".join(map(str, np.unique(labels.camera)[:20])) or "none"
            ignored = int(np.count_nonzero(labels.identity == JUNK))
            junk = f"; {ignored} of them are junk (eval.junk_identities)" if ignored else ""
            return (
                f"protocol {protocol.name!r} ({protocol.description}) keeps none of the {len(labels.identity)} {split} "
                f"images; their cameras are: {cameras}{junk}"
            )
        chosen.append(labels.take(indices))
    chosen = [read_cameras(protocol, labels) for labels in chosen]
    problem = unusable_labels(protocol.rule, *chosen) or no_valid_query(protocol.rule, *chosen)
    return f"protocol {protocol.name!r}: {problem}" if problem else None


def applicable(
    protocols: Sequence[Protocol], query: Labels, gallery: Labels
) -> tuple[tuple[Protocol, ...], dict[str, str]]:
    """Separates the protocols that can be scored on these labels from the other ones.

    Args:
        protocols: the protocols.
        query: labels of the query split, arrays [queries].
        gallery: labels of the gallery split, arrays [gallery images].

    Returns:
        Those that can, in order, and name -> why not of those that cannot.
    """
    reasons = {protocol.name: not_applicable(protocol, query, gallery) for protocol in protocols}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    return tuple(protocol for protocol in protocols if protocol.name not in left_out), left_out


def read_cameras(protocol: Protocol, labels: Labels) -> Labels:
    """Returns `labels` with cameras and locations as the protocol's rule is to read them."""
    camera = np.asarray(labels.camera)
    location = np.full(len(camera), UNKNOWN)
    for place, cameras in enumerate(protocol.locations):
        location[np.isin(camera, cameras)] = place
    return labels._replace(camera=CAMERA_READINGS[protocol.camera](camera), location=location)


def take_embeddings(
    protocol: Protocol, embeddings: np.ndarray, labels: Labels, chosen: np.ndarray, similarity: Similarity
) -> np.ndarray:
    """Returns the embeddings that take part in a protocol: of images, or of tracklets.

    Args:
        protocol: the protocol.
        embeddings: of a whole split, [images, dimension].
        labels: of the split, arrays [images].
        chosen: from `select`, of the same split.
        similarity: of the embeddings.

    Returns:
        [chosen, dimension].
    """
    if protocol.by_tracklet:
        return mean_embeddings(embeddings, checked_labels("split", labels), chosen, similarity)
    return embeddings if len(chosen) == len(embeddings) else embeddings[chosen]


def select(protocol: Protocol, query: Labels, gallery: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Selects the images that take part in a protocol, before any single-shot draw; junk images never do.

    Args:
        protocol: the protocol.
        query: labels of the query split, arrays [queries].
        gallery: labels of the gallery split, arrays [gallery images].

    Returns:
        Ascending indices into the query split and into the gallery split; where tracklets are compared, those of the
        first image of each tracklet.

    Raises:
        InputError: the protocol can't be evaluated on these labels.
    """
    problem = not_applicable(protocol, query, gallery)
    if problem:
        raise InputError(f"{problem}. Check the labels of the dataset or choose another protocol.")
    first = _first_camera(protocol, gallery)
    query, gallery = checked_labels("query", query), checked_labels("gallery", gallery)
    return _pass(protocol, query, protocol.query, first), _pass(protocol, gallery, protocol.gallery, first)


def draw_single_shot(identity: np.ndarray, *, seed: int, draw: int) -> np.ndarray:
    """Draws one image of every identity, each image of an identity equally likely; all distractors stay.

    Args:
        identity: [images].
        seed: the seed of the evaluation.
        draw: number of the draw, from 0.

    Returns:
        Ascending indices [identities and distractors]; the same for the same identities, seed and draw.
    """
    random, people = np.random.default_rng([seed, draw]), np.asarray(identity)
    shuffled = random.permutation(len(people))
    _, first = np.unique(people[shuffled], return_index=True)
    # A negative identity is no person of whom one image could stand for the others.
    return np.union1d(shuffled[first], np.flatnonzero(people < 0))


def evaluate_protocol(
    protocol: Protocol,
    query: np.ndarray,
    gallery: np.ndarray,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    similarity: Similarity,
    seed: int = 0,
    max_rank: int = 50,
    block: int = 256,
    reranking: Reranking | None = None,
    integration: str = AVERAGE_PRECISIONS[0],
) -> ProtocolResult:
    """Scores embeddings of whole query and gallery splits under one protocol.

    Args:
        protocol: the protocol; it selects the images that take part.
        query: embeddings of the query split [queries, dimension].
        gallery: embeddings of the gallery split [gallery images, dimension].
        query_labels: labels of the query split, arrays [queries].
        gallery_labels: labels of the gallery split, arrays [gallery images].
        similarity: the similarity of these embeddings.
        seed: of the single-shot draws.
        max_rank: length of the CMC curve.
        block: queries ranked at a time.
        reranking: re-ranks each gallery (each draw by itself) before it is scored; None ranks by similarity only.
        integration: of the average precision, one of `ranking.AVERAGE_PRECISIONS`.

    Returns:
        ProtocolResult; with `reranking` the name of its protocol ends in "_reranked". Its description says how images
        were re-ranked, and which distance and average precision it has where they are not the usual ones.

    Raises:
        InputError: the protocol can't be evaluated on these labels, no query has a correct gallery image, or the memory
            given for re-ranking is not enough.
    """
    query_chosen, gallery_chosen = select(protocol, query_labels, gallery_labels)
    query = take_embeddings(protocol, query, query_labels, query_chosen, similarity)
    gallery = take_embeddings(protocol, gallery, gallery_labels, gallery_chosen, similarity)
    query_labels = read_cameras(protocol, query_labels.take(query_chosen))
    gallery_labels = read_cameras(protocol, gallery_labels.take(gallery_chosen))
    draws = [draw_single_shot(gallery_labels.identity, seed=seed, draw=i) for i in range(protocol.draws)]
    galleries = [(gallery[drawn], gallery_labels.take(drawn)) for drawn in draws] or [(gallery, gallery_labels)]
    scores = []
    for kept, labels in galleries:
        if reranking is None:
            one = score(
                query,
                kept,
                query_labels,
                labels,
                protocol.rule,
                similarity=similarity,
                max_rank=max_rank,
                block=block,
                integration=integration,
            )
        else:
            distances = rerank(
                query,
                kept,
                similarity=similarity,
                k1=reranking.k1,
                k2=reranking.k2,
                original_weight=reranking.original_weight,
                block=reranking.block(query, kept),
            )
            one = score_from_distances(
                distances, query_labels, labels, protocol.rule, max_rank=max_rank, integration=integration
            )
        scores.append(one)
    how = ["; squared Euclidean distance of features as they are"] if similarity.distance == "euclidean" else []
    how += ["; average precision by the trapezoid rule"] if integration == "trapezoid" else []
    protocol = dataclasses.replace(protocol, description=protocol.description + "".join(how))
    if reranking is not None:
        protocol = dataclasses.replace(
            protocol,
            name=protocol.name + RERANKED,
            description=f"{protocol.description}; {reranking.describe()}",
        )
    table = [{"mAP": result.map, **result.ranks} for result in scores]
    columns = {name: [row[name] for row in table] for name in table[0]}
    return ProtocolResult(
        protocol=protocol,
        figures={name: float(np.mean(values)) for name, values in columns.items()},
        deviations={name: float(np.std(values)) for name, values in columns.items()} if protocol.draws else {},
        gallery=len(galleries[0][0]),
        scores=tuple(scores),
        reranking=reranking,
    )


def _first_camera(protocol: Protocol, gallery: Labels) -> int:
    cameras = np.asarray(gallery.camera)[np.asarray(gallery.identity) != JUNK]
    return int(cameras.min()) if protocol.first_camera_in_gallery and len(cameras) else 0


def _pass(protocol: Protocol, labels: Labels, filter_: Filter, first_camera: int) -> np.ndarray:
    passing: np.ndarray = np.asarray(labels.identity) != JUNK
    if protocol.by_tracklet:
        passing &= np.isin(np.arange(len(passing)), first_images(labels))
    if filter_.cameras is not None:
        passing &= np.isin(np.asarray(labels.camera) - first_camera, filter_.cameras)
    if filter_.clothes is not None:
        passing &= np.isin(labels.clothes, filter_.clothes)
    return np.flatnonzero(passing)
