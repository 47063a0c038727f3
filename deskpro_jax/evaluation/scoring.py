"""Scores networks: which protocols apply, scores during and after training, baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh

from deskpro_jax.checkpoints.selection import Steps
from deskpro_jax.data.load import dataset
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation import evaluate, kept_embeddings, protocols
from deskpro_jax.evaluation.evaluate import Result
from deskpro_jax.evaluation.protocols import Protocol
from deskpro_jax.evaluation.reranking import Reranking
from deskpro_jax.evaluation.results_table import ResultRow
from deskpro_jax.evaluation.similarity import BOTH
from deskpro_jax.models.contract import Network, embedding_streams, image_sizes
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.runtime import sharding

Splits = tuple[ReIDSplit, ReIDSplit]  # query and gallery
Skipped = dict[str, Any]  # unreadable images: names of "query" and "gallery", number of reads of "teacher", "student"
_TEST = ("query", "gallery")
RAW_PIXELS, UNTRAINED = "raw pixels", ", untrained"  # a baseline, and what ends the names of the others
TEACHER = ", teacher"  # ends the names of rows with the face teacher in the student's place


@dataclass(frozen=True)
class Chosen:
    """The protocols that a run reports, and those of the dataset that its labels do not allow."""

    protocols: tuple[Protocol, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)  # name -> why


def choose_protocols(config: ml_collections.ConfigDict, splits: Splits) -> Chosen:
    """Chooses the protocols to report; only labels are looked at, so that a run can fail before it trains.

    Args:
        config: `data.name` and `eval.protocols` are read.
        splits: query and gallery.

    Raises:
        InputError: a protocol is unknown, one asked for by name cannot be scored, or none can; it names the rule or
            the label that is to blame.
    """
    named = protocols.find_protocols(config.data.name, config.eval.protocols)
    able, left_out = protocols.applicable(named, *(evaluate.labels_of(split) for split in splits))
    if left_out and (not able or config.eval.protocols):
        listed = "".join(f"\n  {reason}" for reason in left_out.values())
        data = f"the labels of dataset {config.data.name}"
        what = f"eval.protocols asks for what {data} do not allow" if able else f"{data} allow no protocol"
        raise InputError(
            f"{what}:{listed}\nCorrect the labels of its query and gallery images, or name other protocols in "
            "eval.protocols."
        )
    return Chosen(able, left_out)


def tell_left_out(chosen: Chosen) -> None:
    """Logs which protocols the labels do not allow, and why."""
    for reason in chosen.left_out.values():
        logging.warning("left out: %s", reason)


def reranking_of(config: ml_collections.ConfigDict) -> Reranking | None:
    """Returns the re-ranking that `config.eval` asks for, or None."""
    e = config.eval
    return Reranking(e.rerank_k1, e.rerank_k2, e.rerank_lambda, e.rerank_memory) if e.rerank else None


def make_scorer(
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    splits: Splits,
    networks: Sequence[Network],
    chosen: Sequence[Protocol],
) -> Callable[[Any], dict[str, float]]:
    """Returns the evaluation that runs during training.

    Args:
        config: the configuration.
        mesh: the devices.
        splits: query and gallery.
        networks: what is being trained.
        chosen: protocols; the first decides which checkpoint is the best.

    Returns:
        Function from variables to scores by `protocol/stream/figure`; `face_mAP`, `body_mAP` and `both_mAP` are the
        first protocol's, and so is `mAP`, of both streams together where there are two.
    """
    embed = evaluate.make_embed(networks, config.eval.flip, mesh, config.eval.distance)

    def scorer(variables: Any) -> dict[str, float]:
        skipped: Skipped = {}
        results = score_networks(config, mesh, splits, networks, [variables], chosen, embed=embed, skipped=skipped)
        scores = {name: value for result in results for name, value in result.scalars().items()}
        if config.data.skip_corrupt:
            scores["skipped_test_images"] = float(sum(len(ids) for ids in skipped.values() if isinstance(ids, list)))
        first = {r.stream: r.result.figures["mAP"] for r in reversed(results)}  # under the first protocol
        main = BOTH if BOTH in first else next(iter(first))
        return scores | {f"{name}_mAP": value for name, value in first.items()} | {"mAP": first[main]}

    return scorer


def held_out_protocol(splits: Splits, by_tracklet: bool = False) -> Protocol:
    """Returns the protocol of identities held out of training: without cameras its rule compares none.

    Args:
        splits: their query and gallery.
        by_tracklet: whether tracklets are compared, as the dataset's own protocols do.
    """
    labels = [evaluate.labels_of(split) for split in splits]
    problem = protocols.not_applicable(evaluate.VALIDATION, *labels)
    protocol = evaluate.VALIDATION_WITHOUT_CAMERAS if problem else evaluate.VALIDATION
    return dataclasses.replace(protocol, by_tracklet=by_tracklet)


def score_networks(
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    splits: Splits,
    networks: Sequence[Network],
    variables: Sequence[Any],
    chosen: Sequence[Protocol],
    *,
    reranking: Reranking | None = None,
    embed: Any = None,
    show: bool = False,
    skipped: Skipped | None = None,
    keep: Callable[[Sequence[np.ndarray]], None] | None = None,
) -> list[Result]:
    """Embeds query and gallery and scores them.

    Args:
        config: the configuration.
        mesh: the devices.
        splits: query and gallery.
        networks: together they give the embedding.
        variables: of each network.
        chosen: protocols.
        reranking: adds re-ranked results.
        embed: from `evaluate.make_embed` of the same networks; None makes it.
        show: whether there is a progress line for each split.
        skipped: gets the images of "query" and "gallery" that could not be read (only with data.skip_corrupt); they
            are in no result.
        keep: is called with the embeddings of query and gallery, zeros for unreadable images.

    Returns:
        Results by protocol, within it by stream.
    """
    skipped = {} if skipped is None else skipped
    embed = embed or evaluate.make_embed(networks, config.eval.flip, mesh, config.eval.distance)
    fields = tuple(dict.fromkeys(field for net in networks for field in net.images))
    unreadable = [np.zeros(len(split), bool) for split in splits]
    embeddings = [
        evaluate.embed_split(embed, variables, split, config, mesh, fields, show=show, unreadable=lost)
        for split, lost in zip(splits, unreadable, strict=True)
    ]
    if keep is not None:
        keep(embeddings)
    for name, split, lost in zip(_TEST, splits, unreadable, strict=True):
        skipped[name] = [split.image_id[index] for index in np.flatnonzero(lost)]
    if any(skipped[name] for name in _TEST):
        embeddings = [rows[~lost] for rows, lost in zip(embeddings, unreadable, strict=True)]
        splits = readable(splits, skipped)
    similarity = evaluate.similarity_of(embedding_streams(networks), config.eval.missing_face, config.eval.distance)
    query, gallery = embeddings
    integration = config.eval.average_precision
    return evaluate.score_embeddings(query, gallery, splits, similarity, chosen, config.seed, reranking, integration)


def keeper(
    config: ml_collections.ConfigDict,
    workdir: Path,
    splits: Splits,
    networks: Sequence[Network],
    variables: Sequence[Any],
    steps: Mapping[str, Steps],
) -> Callable[[Sequence[np.ndarray]], None] | None:
    """Returns the `keep` of `score_networks` that writes embeddings into a workdir; None without eval.keep_embeddings.

    Args:
        config: the configuration.
        workdir: the run's folder.
        splits: query and gallery.
        networks: together they give the embedding.
        variables: of each network.
        steps: phase -> step of its checkpoint.
    """
    if not config.eval.keep_embeddings or jax.process_index():
        return None

    def keep(embeddings: Sequence[np.ndarray]) -> None:
        origin = kept_embeddings.origin_of(
            config.data.name,
            splits,
            variables,
            images={field for net in networks for field in net.images},
            sizes={"body_size": config.data.body_size, "face_size": config.data.face_size},
            flip=config.eval.flip,
            dtype=config.model.dtype,
            distance=config.eval.distance,
        )
        similarity = evaluate.similarity_of(embedding_streams(networks), config.eval.missing_face, config.eval.distance)
        try:
            kept_embeddings.keep(workdir, embeddings, origin, similarity, steps)
        except OSError as error:  # the results are worth more than the copy of what they came from
            logging.warning("the embeddings are not kept (eval.keep_embeddings): %s", error)

    return keep


def readable(splits: Splits, skipped: Skipped) -> Splits:
    """Returns query and gallery without the images that `score_networks` skipped."""
    query, gallery = (
        dataset.subset(split, ~np.isin(split.image_id, lost)) if (lost := skipped.get(name)) else split
        for name, split in zip(_TEST, splits, strict=True)
    )
    return query, gallery


def baselines(
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    splits: Splits,
    networks: Sequence[Network],
    protocol: Protocol,
    *,
    show: bool = False,
) -> list[ResultRow]:
    """Returns what raw pixels and the untrained networks reach under a protocol."""
    pixels = evaluate.score_raw_pixels(splits, config, protocol)
    dropped = sum(pixels.dropped.values())
    rows = [
        ResultRow(
            protocol.name,
            RAW_PIXELS,
            pixels.map,
            pixels.ranks,
            pixels.counted,
            dropped,
            average_precision=pixels.integration,
        )
    ]
    sizes = image_sizes(config)
    untrained = [sharding.put_variables(mesh, init_variables(net.module, config.seed, sizes)) for net in networks]
    for result in score_networks(config, mesh, splits, networks, untrained, [protocol], show=show):
        rows.append(result.row()._replace(stream=result.stream + UNTRAINED))
    return rows
