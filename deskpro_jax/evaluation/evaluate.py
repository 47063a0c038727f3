"""Embeds query and gallery with trained networks and scores them under the dataset's protocols."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array, Float

from deskpro_jax.data.load import augment, pipeline
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.evaluation import protocols
from deskpro_jax.evaluation.matching_rules import Labels
from deskpro_jax.evaluation.ranking import Scores, score_from_distances
from deskpro_jax.evaluation.reranking import Reranking
from deskpro_jax.evaluation.results_table import ResultRow
from deskpro_jax.evaluation.similarity import Similarity, StreamParts
from deskpro_jax.models import embeddings
from deskpro_jax.models.contract import Network, StreamSpec, embedding_streams
from deskpro_jax.runtime import sharding
from deskpro_jax.runtime.compilation import compiler_options
from deskpro_jax.runtime.processes import any_process_each
from deskpro_jax.runtime.progress import Progress

VALIDATION = protocols.Protocol("validation", "identities held out of the training split", "general")
VALIDATION_WITHOUT_CAMERAS = protocols.Protocol(
    "validation", "identities held out of the training split, no image is junk for want of camera labels", "none"
)


class Result(NamedTuple):
    """The scores of one stream (or both) under one protocol."""

    stream: str
    result: protocols.ProtocolResult

    def row(self) -> ResultRow:
        """Returns the line of the results table."""
        scores, figures = self.result.scores[0], self.result.figures
        dropped = sum(scores.dropped.values())
        return ResultRow(
            self.result.protocol.name,
            self.stream,
            figures["mAP"],
            figures,
            scores.counted,
            dropped,
            self.result.deviations,
            scores.integration,
        )

    def scalars(self) -> dict[str, float]:
        """Returns the figures by `protocol/stream/figure`, and their deviations over draws as `.../figure_std`."""
        start = f"{self.result.protocol.name}/{self.stream}"
        figures = {f"{start}/{name}": value for name, value in self.result.figures.items()}
        return figures | {f"{start}/{name}_std": value for name, value in self.result.deviations.items()}


def make_embed(
    networks: Sequence[Network], flip: bool, mesh: Mesh, distance: str = "cosine"
) -> Callable[[Sequence[Any], Mapping[str, Array]], Float[Array, "batch embedding"]]:
    """Returns a jitted function from each network's variables and a batch of uint8 images to embeddings.

    It is compiled with options of its own (`compilation`), so jax refuses it inside another jitted function.

    Args:
        networks: together they give the streams.
        flip: whether the features of the mirrored image are added.
        mesh: the devices.
        distance: `eval.distance`: "cosine" scales each part to unit length.
    """
    specs = embedding_streams(networks)

    def features(variables: Sequence[Any], images: Mapping[str, Array]) -> dict[str, Array]:
        by_stream: dict[str, Array] = {}
        for net, values in zip(networks, variables, strict=True):
            outputs, _ = net.module.apply(values, {name: images[name] for name in net.images}, train=False)
            by_stream |= {stream.name: outputs[stream.name]["embeddings"] for stream in net.streams}
        return by_stream

    def embed(variables: Sequence[Any], batch: Mapping[str, Array]) -> Array:
        images = augment.normalise_batch(dict(batch))
        fields = {name: images[name] for net in networks for name in net.images}
        if flip:  # an image and its mirror image one after the other: one pass over both, each device over its own
            fields = {name: _interleave(image, image[:, :, ::-1]) for name, image in fields.items()}
        if one_by_one:
            by_stream = _one_by_one(lambda image: features(variables, image), fields)
        else:
            by_stream = features(variables, fields)
        if flip:
            by_stream, mirrored = ({name: value[:, i::2] for name, value in by_stream.items()} for i in range(2))
        joined = embeddings.combine(
            specs, by_stream, mirrored if flip else None, has_face=batch["has_face"], unit=distance == "cosine"
        )
        return jnp.where(batch["valid"][:, None], joined, 0)

    # One image's maps stay in a CPU's cache, those of a batch do not; and sums over them are rounded the same way
    # whatever the image's place. Devices share a batch otherwise.
    one_by_one = mesh.size == 1 and sharding.on_cpu(mesh)
    whole, rows = sharding.replicated(mesh), sharding.split_batch(mesh)
    # Variables stay where they are: classifiers that lie in parts on the devices are not used here.
    options = compiler_options(mesh)
    return jax.jit(embed, in_shardings=(None, rows), out_shardings=whole, compiler_options=options)


def _interleave(first: Array, second: Array) -> Array:
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def _one_by_one(
    function: Callable[[Mapping[str, Array]], dict[str, Array]], images: Mapping[str, Array]
) -> dict[str, Array]:
    """Applies a function to one row of a batch at a time; its results hold the batch on their second axis."""
    results = jax.lax.map(function, {name: image[:, None] for name, image in images.items()})
    return {name: jnp.moveaxis(value[:, :, 0], 0, 1) for name, value in results.items()}


def embed_split(
    embed: Callable[[Sequence[Any], Mapping[str, Array]], Array],
    variables: Sequence[Any],
    split: ReIDSplit,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    fields: Sequence[str],
    *,
    show: bool = False,
    unreadable: np.ndarray | None = None,
) -> np.ndarray:
    """Embeds a whole split.

    Args:
        embed: from `make_embed`.
        variables: of each network.
        split: query, gallery or any other.
        config: `data` and `eval.batch` are read.
        mesh: the devices.
        fields: images that the networks need.
        show: whether there is a progress line; not while that of a training phase is shown.
        unreadable: [images] bool, set True here for images that cannot be read; only with data.skip_corrupt.

    Returns:
        Embeddings [len(split), dimension] float32, in the order of the split, zeros for unreadable images.
    """
    multiple = math.lcm(mesh.size, jax.process_count())
    size = -(-config.eval.batch // multiple) * multiple
    batches = pipeline.eval_batches(split, config, size, fields, jax.process_index(), jax.process_count())
    blocks = []
    with Progress(len(split), f"embedding {split.split}", images_per_step=1, enabled=show) as progress:
        for batch in batches:
            batch.pop("index")
            # Replicated, so that every process holds all rows and scores them without another exchange.
            blocks.append(np.asarray(embed(variables, sharding.put_batch(mesh, batch))))
            progress.advance(steps=min(size, len(split) - (len(blocks) - 1) * size))
    if unreadable is not None and config.data.skip_corrupt:
        unreadable |= any_process_each(np.isin(split.image_id, list(batches.skipped)))
    return np.concatenate(blocks)[: len(split)]


def labels_of(split: ReIDSplit) -> Labels:
    """Returns identities, cameras, clothes, tracklets and scales of a split."""
    return Labels(split.identity, split.camera, split.clothes, split.tracklet, split.scale)


def similarity_of(streams: Sequence[StreamSpec], missing_face: str = "body", distance: str = "cosine") -> Similarity:
    """Returns the similarity of the embeddings that networks give.

    Args:
        streams: of the embedding, in order.
        missing_face: `eval.missing_face`.
        distance: `eval.distance`.

    Raises:
        InputError: `missing_face` or `distance` is not known.
    """
    parts = (
        StreamParts(stream.name, len(stream.parts), stream.dim, stream.reads_face, stream.weights) for stream in streams
    )
    return Similarity(tuple(parts), missing_face, distance)


def score_embeddings(
    query: np.ndarray,
    gallery: np.ndarray,
    splits: tuple[ReIDSplit, ReIDSplit],
    similarity: Similarity,
    chosen: Sequence[protocols.Protocol],
    seed: int,
    reranking: Reranking | None = None,
    integration: str = "step",
) -> list[Result]:
    """Scores each stream and, where there are two, both together under each protocol.

    Args:
        query: embeddings [queries, dimension].
        gallery: embeddings [gallery images, dimension].
        splits: query and gallery.
        similarity: the similarity of these embeddings.
        chosen: protocols; those that these labels do not allow are left out and logged.
        seed: of single-shot draws.
        reranking: adds the same results re-ranked; None leaves them out.
        integration: `eval.average_precision`.

    Returns:
        Results by protocol, within it by stream, the re-ranked ones after the others.
    """
    labels = labels_of(splits[0]), labels_of(splits[1])
    results = []
    for protocol in chosen:
        reason = protocols.not_applicable(protocol, *labels)
        if reason:
            logging.warning("left out: %s", reason)
            continue
        for method in (None, reranking) if reranking else (None,):
            for name, (columns, one) in similarity.views().items():
                if method:
                    logging.info("re-ranking: protocol %s, stream %s", protocol.name, name)
                result = protocols.evaluate_protocol(
                    protocol,
                    query[:, columns],
                    gallery[:, columns],
                    *labels,
                    similarity=one,
                    seed=seed,
                    reranking=method,
                    integration=integration,
                )
                results.append(Result(name, result))
    return results


def raw_pixels(split: ReIDSplit, config: ml_collections.ConfigDict) -> Float[np.ndarray, "images pixels"]:
    """Returns the body images of a split as vectors in [0, 1], the plainest feature there is."""
    batches = pipeline.eval_batches(split, config, config.eval.batch, ("body",))
    rows = [batch["body"].reshape(len(batch["body"]), -1) for batch in batches]
    return np.concatenate(rows)[: len(split)].astype(np.float32) / 255.0


def score_raw_pixels(
    splits: tuple[ReIDSplit, ReIDSplit], config: ml_collections.ConfigDict, protocol: protocols.Protocol
) -> Scores:
    """Scores Euclidean nearest neighbours of raw body pixels: what a network has to beat."""
    labels = labels_of(splits[0]), labels_of(splits[1])
    chosen = protocols.select(protocol, *labels)
    taken = []
    for split, known, rows in zip(splits, labels, chosen, strict=True):
        pixels = raw_pixels(split, config)
        similarity = Similarity((StreamParts("pixels", 1, pixels.shape[1]),), distance="euclidean")
        taken.append(protocols.take_embeddings(protocol, pixels, known, rows, similarity))
    query, gallery = taken
    squared = (query**2).sum(1)[:, None] + (gallery**2).sum(1)[None] - 2.0 * query @ gallery.T
    return score_from_distances(
        squared,
        protocols.read_cameras(protocol, labels[0].take(chosen[0])),
        protocols.read_cameras(protocol, labels[1].take(chosen[1])),
        protocol.rule,
        integration=config.eval.average_precision,
    )
