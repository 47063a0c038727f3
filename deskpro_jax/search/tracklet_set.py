"""Embeddings by tracklet: the mean of a tracklet's photos in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.tracklets import group_means


class TrackletSet(EmbeddingSet):
    """Embeddings whose rows are tracklets; a photo of no tracklet is a row of its own.

    The first photo of a tracklet stands for it: its name, path and labels are the row's.
    """

    def __init__(self, path: str | Path, *, streams: Sequence[str] | None = None):
        """Opens embeddings and averages those of each tracklet, as evaluation does.

        Args:
            path: as for `EmbeddingSet`.
            streams: as for `EmbeddingSet`.

        Raises:
            MissingInputError: there is nothing at `path`.
            InputError: it holds no embeddings or no tracklets, or a tracklet shows two people.
        """
        super().__init__(path, streams=streams)
        columns = super().columns()
        if "tracklet" not in columns:
            raise InputError(
                f"{self.path} has no tracklets: embed a table of photos with a column tracklet, or leave --by-tracklet"
                " out."
            )
        rows: dict[Any, int] = {}
        first: list[int] = []
        group = np.empty(len(columns["tracklet"]), np.int64)
        for photo, tracklet in enumerate(columns["tracklet"]):
            row = rows.setdefault(("photo", photo) if tracklet is None else tracklet, len(first))
            if row == len(first):
                first.append(photo)
            elif (one := columns["identity"][first[row]]) != (other := columns["identity"][photo]):
                raise InputError(
                    f"{self.path}: tracklet {tracklet!r} has photos of the identities {one!r} and {other!r}; expected"
                    " one identity per tracklet."
                )
            group[photo] = row
        self._rows = {name: [values[photo] for photo in first] for name, values in columns.items()}
        photos = np.concatenate([np.zeros((0, self.dimension), np.float32), *super().blocks()])
        self._means = group_means(photos, group, len(first), self.similarity)
        has_face = np.zeros(len(first), bool)
        has_face[group[np.array(columns["has_face"], bool)]] = True
        self._rows["has_face"] = has_face.tolist()

    def columns(self) -> dict[str, list[Any]]:
        """Returns the labels of all tracklets, by column."""
        return self._rows

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the embeddings of all tracklets."""
        yield self._means
