"""One stream's rankings of the gallery under one protocol, block by block: what lists and confusions are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation import evaluate, protocols, ranking
from deskpro_jax.evaluation.matching_rules import Labels, Pairs, find_junk, find_rule, same_identity
from deskpro_jax.evaluation.similarity import Similarity
from deskpro_jax.report.opened import Opened

BLOCK = 256  # queries compared at a time


class Block(NamedTuple):
    """Some queries compared with the whole gallery.

    Attributes:
        rows: [n] positions of the queries in the view.
        similarity: [n, gallery images].
        pairs: queries (positions in the block) and gallery images of their identity.
        junk: [pairs] which of them the protocol ignores in the ranking.
    """

    rows: np.ndarray
    similarity: np.ndarray
    pairs: Pairs
    junk: np.ndarray


@dataclass(frozen=True, eq=False)
class View:
    """The images that take part in a protocol, as one stream sees them.

    Attributes:
        stream: "face", "body" or "both".
        rule: name of the matching rule.
        draws: single-shot galleries of the protocol, of which this is the first; 0 where it has the whole gallery.
        query, gallery: embeddings [images, dimension].
        query_labels, gallery_labels: their labels, cameras as the rule reads them.
        query_index, gallery_index: [images] their positions in the splits; where tracklets are compared, those of an
            image of each.
        similarity: of the stream's embeddings.
        integration: `eval.average_precision`.
    """

    stream: str
    rule: str
    draws: int
    query: np.ndarray
    gallery: np.ndarray
    query_labels: Labels
    gallery_labels: Labels
    query_index: np.ndarray
    gallery_index: np.ndarray
    similarity: Similarity
    integration: str = "step"

    def score(self) -> ranking.Scores:
        """Scores the rankings, as evaluation does."""
        return ranking.score(
            self.query,
            self.gallery,
            self.query_labels,
            self.gallery_labels,
            self.rule,
            similarity=self.similarity,
            block=BLOCK,
            integration=self.integration,
        )

    def block(self, rows: np.ndarray) -> Block:
        """Compares the queries at `rows` [n] with the gallery."""
        labels = self.query_labels.take(rows)
        similarity = self.similarity.between(self.query[rows], self.gallery)
        pairs = same_identity(labels, self.gallery_labels)
        junk, _ = find_junk(find_rule(self.rule), labels, self.gallery_labels, pairs)
        return Block(rows, similarity, pairs, junk)

    def blocks(self, order: np.ndarray) -> Iterator[Block]:
        """Compares the queries at `order` [n] with the gallery, a block at a time."""
        for start in range(0, len(order), BLOCK):
            yield self.block(order[start : start + BLOCK])


def similarity_of(opened: Opened) -> Similarity:
    """Returns the similarity of embeddings of the opened networks."""
    rules = opened.config.eval
    return evaluate.similarity_of(opened.trained.streams, rules.missing_face, rules.distance)


def make_view(opened: Opened, embeddings: tuple[np.ndarray, np.ndarray], stream: str | None) -> View:
    """Returns the images of the protocol of `opened`, as one stream sees them.

    Args:
        opened: networks, images and protocol.
        embeddings: of query and gallery.
        stream: "face", "body" or "both"; None for both together where there are two.

    Raises:
        InputError: there is no such stream.
    """
    views = similarity_of(opened).views()
    stream = stream or list(views)[-1]
    if stream not in views:
        raise InputError(f"--stream is {stream!r}; these networks have {', '.join(views)}.")
    protocol = opened.protocol
    columns, similarity = views[stream]
    labels = evaluate.labels_of(opened.query), evaluate.labels_of(opened.gallery)
    query_index, gallery_index = protocols.select(protocol, *labels)
    if protocol.draws:
        drawn = protocols.draw_single_shot(labels[1].identity[gallery_index], seed=int(opened.config.seed), draw=0)
        gallery_index = gallery_index[drawn]
    return View(
        stream,
        protocol.rule,
        protocol.draws,
        protocols.take_embeddings(protocol, embeddings[0][:, columns], labels[0], query_index, similarity),
        protocols.take_embeddings(protocol, embeddings[1][:, columns], labels[1], gallery_index, similarity),
        protocols.read_cameras(protocol, labels[0].take(query_index)),
        protocols.read_cameras(protocol, labels[1].take(gallery_index)),
        query_index,
        gallery_index,
        similarity,
        opened.config.eval.average_precision,
    )
