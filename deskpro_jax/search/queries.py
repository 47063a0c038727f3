"""The queries of a search: embeddings, or photos that are embedded as the gallery was."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deskpro_jax.cli.arguments import model_options, use_compilation_cache
from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.embedding.faces import open_faces, with_faces
from deskpro_jax.embedding.files import INDEX
from deskpro_jax.embedding.photo_list import Listed, list_photos
from deskpro_jax.errors import InputError
from deskpro_jax.storage.parquet import open_parquet

if TYPE_CHECKING:
    from deskpro_jax.embedding.embedder import Embedder

_BATCH = 64  # of query photos, at most


@dataclasses.dataclass(frozen=True)
class Queries:
    """What is looked for.

    Attributes:
        names: of the photos.
        embeddings: [queries, dimension] float32.
        unreadable: path -> why that photo has no embedding.
    """

    names: Sequence[str]
    embeddings: np.ndarray
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _embeddings_at(path: Path) -> bool:
    """Returns whether a path holds embeddings, rather than photos."""
    if path.is_dir():
        return (path / INDEX).exists()
    if path.suffix == ".npy":
        return True
    if path.suffix == ".parquet" and path.is_file():
        with open_parquet(path) as file:
            return "embedding" in file.schema_arrow.names
    return False


def open_queries(options: argparse.Namespace, gallery: EmbeddingSet) -> Queries:
    """Returns what the flags of a search say to look for.

    Args:
        options: the flags.
        gallery: where it will be looked for.

    Raises:
        InputError: it cannot be compared with the gallery, or a flag is missing.
        MissingInputError: there is nothing at `--query`.
    """
    path = Path(options.query).expanduser()
    if _embeddings_at(path):
        if options.checkpoint:
            raise InputError(f"{path} holds embeddings: leave out --checkpoint, or give photos.")
        held = EmbeddingSet(path, streams=options.streams)
        check_alike(gallery, held.settings, options.query)
        return Queries(held.columns()["image_id"], held.all())
    if not options.checkpoint:
        raise InputError(
            f"{path} is embedded first: give --checkpoint, the networks that the gallery was embedded with."
        )
    return _embed(options, gallery)


def _embed(options: argparse.Namespace, gallery: EmbeddingSet) -> Queries:
    """Embeds the query photos as the gallery was embedded."""
    from deskpro_jax.embedding.embedder import Embedder

    listing = list_photos(options.query, options.root)
    wanted = model_options(options)
    like = gallery.settings
    for name in ("face", "flip", "dtype", "body_size", "face_size"):
        if wanted[name] is None and like.get(name) is not None:
            wanted[name] = tuple(like[name]) if isinstance(like[name], list) else like[name]
    wanted["batch"] = wanted["batch"] or min(_BATCH, sum(1 for _ in listing))
    use_compilation_cache(Path(options.checkpoint))
    embedder = Embedder(options.checkpoint, **wanted)
    check_alike(gallery, embedder.settings, str(options.checkpoint))
    if options.faces and embedder.face_field:
        listing = with_faces(listing, open_faces(options.faces, embedder.face_field))
    photos = list(listing)
    if options.face_image:
        if len(photos) != 1:
            raise InputError(f"--face-image is the face of one photo, --query has {len(photos)}: give --faces.")
        photos = [photos[0]._replace(face=options.face_image)]
    return _embedded(photos, embedder)


def _embedded(photos: Sequence[Listed], embedder: Embedder) -> Queries:
    unreadable: dict[str, str] = {}
    names: list[str] = []
    rows = [np.zeros((0, embedder.dimension), np.float32)]
    faces, done = any(photo.face for photo in photos), 0
    for block in embedder.stream(((photo.path, photo.face) for photo in photos), faces=faces):
        here = photos[done : done + len(block.embeddings)]
        done += len(here)
        unreadable |= {here[row].path: reason for row, reason in block.failures.items()}
        kept = [row for row in range(len(here)) if row not in block.failures]
        names += [here[row].image_id for row in kept]
        rows.append(block.embeddings[kept])
    return Queries(names, np.concatenate(rows), unreadable)


def check_alike(gallery: EmbeddingSet, settings: Mapping[str, Any], what: str) -> None:
    """Refuses embeddings of other networks, and mentions what else is not as for the gallery.

    Args:
        gallery: the gallery.
        settings: of what is to be compared with it.
        what: its name, for messages.

    Raises:
        InputError: they are not embeddings of the same networks.
    """
    for name in ("model_checksum", "dimension", "streams"):
        ours, theirs = gallery.settings.get(name), settings.get(name)
        if ours is not None and theirs is not None and list(_many(ours)) != list(_many(theirs)):
            raise InputError(
                f"{what} has {name} {theirs!r}, the gallery {gallery.path} {ours!r}: they do not come from the same "
                "networks. Embed both with one checkpoint."
            )
    for name in ("flip", "body_size", "face_size", "dtype", "missing_face"):
        ours, theirs = gallery.settings.get(name), settings.get(name)
        if ours is not None and theirs is not None and ours != theirs:
            print(f"note: {what} was embedded with {name} {theirs}, the gallery with {ours}.", file=sys.stderr)


def _many(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]
