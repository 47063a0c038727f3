"""How similar two embeddings are: the parts that they are made of, and what a missing face counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deskpro_jax.errors import InputError

MISSING_FACE = ("body", "zeros")  # `eval.missing_face`: what a pair is compared by where an image shows no face
DISTANCES = ("cosine", "euclidean")  # `eval.distance`
BOTH = "both"  # all streams together, beside each stream's own name


@dataclasses.dataclass(frozen=True)
class StreamParts:
    """The columns of one stream in an embedding.

    Attributes:
        name: of the stream.
        count: number of its parts.
        dim: length of each part.
        may_be_missing: whether there are images without this stream, which hold zeros there.
        weights: of the parts in a similarity, in order; () counts each once.
    """

    name: str
    count: int
    dim: int
    may_be_missing: bool = False
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.weights and (len(self.weights) != self.count or min(self.weights) <= 0):
            raise InputError(
                f"stream {self.name} has {self.count} parts and weights {self.weights}; expected a number above 0 for"
                " each part."
            )


@dataclasses.dataclass(frozen=True)
class Similarity:
    """The similarity of embeddings that are made of parts, zeros where an image lacks a part.

    Attributes:
        streams: in the order of the columns.
        missing_face: "body" (paper) takes the mean over the parts that both images have; "zeros" (released code) over
            all parts, so that those that an image lacks count as zeros. Means are weighted by the parts' weights.
        distance: "cosine" compares parts of unit length by their cosine similarity; "euclidean" features as they are,
            by minus their squared Euclidean distance.

    Raises:
        InputError: `missing_face` or `distance` is not known.
    """

    streams: tuple[StreamParts, ...]
    missing_face: str = MISSING_FACE[0]
    distance: str = DISTANCES[0]

    def __post_init__(self) -> None:
        check_missing_face(self.missing_face)
        if self.distance not in DISTANCES:
            raise InputError(f"eval.distance is {self.distance!r}; expected one of {', '.join(DISTANCES)}.")

    @property
    def parts(self) -> int:
        """Number of parts of an embedding."""
        return sum(stream.count for stream in self.streams)

    @property
    def weights(self) -> np.ndarray:
        """The weights of the parts, float32 [parts]."""
        return np.concatenate([stream.weights or np.ones(stream.count) for stream in self.streams]).astype(np.float32)

    @property
    def total_weight(self) -> float:
        """The sum of the weights: the number of parts where none has a weight."""
        return float(self.weights.sum(dtype=np.float64))

    @property
    def total_dim(self) -> int:
        """Length of an embedding."""
        return sum(stream.count * stream.dim for stream in self.streams)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the streams."""
        return tuple(stream.name for stream in self.streams)

    def columns(self) -> dict[str, slice]:
        """Returns the columns of each stream, by name."""
        ends = np.cumsum([stream.count * stream.dim for stream in self.streams]).tolist()
        return {
            stream.name: slice(end - stream.count * stream.dim, end)
            for stream, end in zip(self.streams, ends, strict=True)
        }

    def select(self, names: Sequence[str]) -> Similarity:
        """Returns the similarity of embeddings that consist of some of the streams only."""
        return dataclasses.replace(self, streams=tuple(stream for stream in self.streams if stream.name in names))

    def views(self) -> dict[str, tuple[slice, Similarity]]:
        """Returns each stream by itself, and `BOTH` where there are several: its columns and its similarity."""
        views = {name: (columns, self.select([name])) for name, columns in self.columns().items()}
        return views if len(self.streams) == 1 else views | {BOTH: (slice(None), self)}

    def present(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns which parts of embeddings [images, dimension] are there (not zero), bool [images, parts]."""
        blocks = [
            embeddings[:, columns].reshape(len(embeddings), stream.count, stream.dim).any(axis=2)
            for stream, columns in zip(self.streams, self.columns().values(), strict=True)
        ]
        return np.concatenate(blocks, axis=1)

    def present_streams(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns which streams of embeddings [images, dimension] have any part, bool [images, streams]."""
        return np.stack([embeddings[:, columns].any(axis=1) for columns in self.columns().values()], axis=1)

    def weigh(self, embeddings: np.ndarray) -> np.ndarray:
        """Multiplies parts by the square roots of their weights, so that dot products are weighted sums of parts'.

        Args:
            embeddings: [images, dimension].

        Returns:
            [images, dimension] of the same type; the argument itself where no part has a weight.
        """
        if not any(stream.weights for stream in self.streams):
            return embeddings
        return embeddings * np.repeat(np.sqrt(self.weights, dtype=embeddings.dtype), self._dims())

    def unit_parts(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns embeddings [images, dimension] with each part at unit length; zeros stay zeros."""
        lengths = np.sqrt(self._squares(embeddings))
        return embeddings / np.repeat(np.where(lengths > 0, lengths, 1), self._dims(), axis=1)

    def _dims(self) -> list[int]:
        return [stream.dim for stream in self.streams for _ in range(stream.count)]

    def _squares(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns the squared lengths of parts, [images, parts]."""
        return np.add.reduceat(np.square(embeddings), np.cumsum([0, *self._dims()[:-1]]), axis=1)

    def between(self, query: np.ndarray, gallery: np.ndarray, gallery_present: np.ndarray | None = None) -> np.ndarray:
        """Computes the similarity of every query with every gallery image.

        Args:
            query: [queries, dimension].
            gallery: [gallery images, dimension].
            gallery_present: `present(gallery)`, where it is known already.

        Returns:
            [queries, gallery images]: weighted mean cosine similarity in [-1, 1], 0 where they share no part; or minus
            the weighted mean squared distance, that of vectors at right angles where they share no part. float64 if
            both inputs are, float32 otherwise.

        Raises:
            InputError: the embeddings are not of this length.
        """
        query, gallery = self.check(query, gallery)
        shared: np.ndarray | float = self.total_weight
        mine = theirs = None
        if self.missing_face != "zeros":
            mine = self.present(query)
            theirs = self.present(gallery) if gallery_present is None else gallery_present
            if mine.all() and theirs.all():
                mine = theirs = None
            else:
                shared = self.shared_weight(mine, theirs).astype(query.dtype)
        query, gallery = self.weigh(query), self.weigh(gallery)
        products: np.ndarray = query @ gallery.T
        if self.distance == "cosine":  # where no part is shared, the product is 0 already
            return self.mean(products, shared if isinstance(shared, float) else np.where(shared > 0, shared, 1))
        squares = self._squares(query), self._squares(gallery)
        lengths = squares[0].sum(axis=1)[:, None] + squares[1].sum(axis=1)[None]
        if mine is not None and theirs is not None and not isinstance(shared, float):
            common = squares[0] @ theirs.T.astype(query.dtype) + mine.astype(query.dtype) @ squares[1].T
            lengths = np.where(shared > 0, common, lengths)
            shared = np.where(shared > 0, shared, np.asarray(self.total_weight, query.dtype))
        products *= 2
        products -= lengths
        return self.mean(products, shared)

    def shared_weight(self, query_present: np.ndarray, gallery_present: np.ndarray) -> np.ndarray:
        """Returns the summed weights of the parts that two images both have.

        Args:
            query_present: `present(query)`.
            gallery_present: `present(gallery)`.

        Returns:
            [queries, gallery images] float32.
        """
        return (query_present * self.weights) @ gallery_present.T.astype(np.float32)

    def mean(self, sums: np.ndarray, shared: np.ndarray | float) -> np.ndarray:
        """Divides weighted sums over parts, in place, by the weight that the rule for missing faces counts.

        Args:
            sums: any shape, float; sums of the parts' similarities, each times its weight.
            shared: summed weights of the parts that both images have, above 0; of the same shape, or one for all.

        Returns:
            `sums`, now similarities.
        """
        sums /= self.total_weight if self.missing_face == "zeros" else shared
        return sums

    def blocks(self, query: np.ndarray, gallery: np.ndarray, block: int) -> Iterator[np.ndarray]:
        """Yields the rows of `between(query, gallery)`, `block` queries at a time."""
        query, gallery = self.check(query, gallery)
        present = self.present(gallery)
        for start in range(0, len(query), block):
            yield self.between(query[start : start + block], gallery, present)

    def distances(
        self, query: np.ndarray, gallery: np.ndarray, gallery_present: np.ndarray | None = None
    ) -> np.ndarray:
        """Computes squared Euclidean distances: of unit vectors with the same cosine similarity, 2 - 2 similarity.

        Args:
            query: [queries, dimension].
            gallery: [gallery images, dimension].
            gallery_present: `present(gallery)`, where it is known already.

        Returns:
            [queries, gallery images], at least 0; at most 4 of cosine similarities.
        """
        distances = self.between(query, gallery, gallery_present)
        if self.distance == "euclidean":
            np.negative(distances, out=distances)
        else:
            np.subtract(1, distances, out=distances)
            distances *= 2
        return np.maximum(distances, 0, out=distances)  # rounding can bring an image closer than itself

    def compared(self, shared: int) -> str:
        """Returns in words what two images were compared by: "face and body", or the streams that every image has.

        Args:
            shared: number of parts that both have.
        """
        if shared == self.parts:
            return " and ".join(self.names)
        return " and ".join(self.always_present())

    def always_present(self) -> tuple[str, ...]:
        """Returns the names of the streams that every image has; of all streams where there is none."""
        return tuple(stream.name for stream in self.streams if not stream.may_be_missing) or self.names

    def check(self, query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings as float64 if both are, as float32 otherwise; InputError where the shapes don't fit."""
        query, gallery = np.asarray(query), np.asarray(gallery)
        if any(array.ndim != 2 or array.shape[1] != self.total_dim for array in (query, gallery)):
            raise InputError(
                f"query embeddings {query.shape} and gallery embeddings {gallery.shape}; expected "
                f"[images, {self.total_dim}] in both: {self.parts} parts of "
                f"{', '.join(f'{stream.name} ({stream.count} x {stream.dim})' for stream in self.streams)}."
            )
        dtype = np.float64 if query.dtype == gallery.dtype == np.float64 else np.float32
        return query.astype(dtype, copy=False), gallery.astype(dtype, copy=False)


def check_missing_face(rule: str) -> None:
    """Raises InputError unless `rule` is one of `MISSING_FACE`."""
    if rule not in MISSING_FACE:
        raise InputError(f"eval.missing_face is {rule!r}; expected one of {', '.join(MISSING_FACE)}.")


def equal_parts(
    dimension: int,
    parts: Mapping[str, int],
    may_be_missing: Sequence[str] = (),
    missing_face: str = MISSING_FACE[0],
) -> Similarity:
    """Returns the similarity of embeddings whose parts are all of one length.

    Args:
        dimension: length of an embedding.
        parts: stream -> number of its parts, in the order of the columns.
        may_be_missing: streams that some images lack.
        missing_face: one of `MISSING_FACE`.

    Raises:
        InputError: the parts do not divide the embedding, or `missing_face` is not known.
    """
    total = sum(parts.values())
    if min(parts.values(), default=0) < 1 or dimension % total:
        raise InputError(f"embeddings of length {dimension} with {total} parts; expected a multiple of the parts.")
    streams = (StreamParts(name, count, dimension // total, name in may_be_missing) for name, count in parts.items())
    return Similarity(tuple(streams), missing_face)


def similarity(query: np.ndarray, gallery: np.ndarray, *, parts: int, missing_face: str = "body") -> np.ndarray:
    """Computes the similarity of every query with every gallery image, as `Similarity.between` does.

    Args:
        query: [queries, parts * dim].
        gallery: [gallery images, parts * dim].
        parts: number of equally long parts of an embedding.
        missing_face: "body" compares by the parts that both images have, "zeros" by all.

    Returns:
        [queries, gallery images] mean cosine similarity; float64 if both inputs are, float32 otherwise.

    Raises:
        InputError: the shapes don't fit, or `missing_face` is neither.
    """
    query = np.asarray(query)
    dimension = query.shape[1] if query.ndim == 2 else 0
    return equal_parts(dimension, {"all": parts}, missing_face=missing_face).between(query, gallery)
