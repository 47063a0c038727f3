"""The queries of a search: embeddings, or photos that are embedded as the gallery was."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deskpro_jax.data.photo_names import passed_over
from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.embedding.faces import open_faces, with_faces
from deskpro_jax.embedding.files import INDEX
from deskpro_jax.embedding.photo_list import Listed, list_photos
from deskpro_jax.errors import InputError
from deskpro_jax.search.tracklet_set import TrackletSet
from deskpro_jax.storage.parquet import open_parquet

if TYPE_CHECKING:
    from deskpro_jax.embedding.embedder import Embedder

_BATCH = 64  # of query photos, at most


@dataclasses.dataclass(frozen=True)
class Queries:
    """The queries of a search.

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


@dataclasses.dataclass(frozen=True)
class Photos:
    """How query photos are found and embedded.

    Attributes:
        checkpoint: the workdir or weights file of the networks that the gallery was embedded with.
        settings: further arguments of `Embedder`; None in place of a value takes that of the gallery.
        faces: folder with the photos' faces, or None.
        face_image: the face of a single photo, or None.
        root: folder that names and relative paths start from, or None.
    """

    checkpoint: str | Path
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    faces: str | None = None
    face_image: str | None = None
    root: str | None = None


def open_queries(
    query: str, gallery: EmbeddingSet, photos: Photos | None, streams: tuple[str, ...] | None = None
) -> Queries:
    """Opens the queries of a search: a file of embeddings, or photos, which are embedded.

    Args:
        query: path of embeddings, or photos as `list_photos` takes them.
        gallery: what is searched; where it is by tracklet, so are embeddings with tracklets.
        photos: how to embed photos; None where `query` holds embeddings.
        streams: of embeddings that another program wrote.

    Raises:
        InputError: the queries cannot be compared with the gallery, or a flag is missing.
        MissingInputError: there is no such file or folder.
    """
    path = Path(query).expanduser()
    if _embeddings_at(path):
        if photos is not None:
            raise InputError(f"{path} holds embeddings: leave out --checkpoint, or give photos.")
        held = EmbeddingSet(path, streams=streams)
        if isinstance(gallery, TrackletSet) and "tracklet" in held.columns():
            held = TrackletSet(path, streams=streams)
        check_alike(gallery, held.settings, query)
        return Queries(held.columns()["image_id"], held.all())
    if photos is None:
        raise InputError(
            f"{path} is embedded first: give --checkpoint, the networks that the gallery was embedded with."
        )
    return _embed(query, gallery, photos)


def _embed(query: str, gallery: EmbeddingSet, photos: Photos) -> Queries:
    """Embeds the query photos as the gallery was embedded."""
    from deskpro_jax.embedding.embedder import Embedder
    from deskpro_jax.runtime.compilation import use_cache_of

    listing = list_photos(query, photos.root)
    for note in listing.notes:
        print(f"note: {note}", file=sys.stderr)
    settings = dict(photos.settings)
    for name in ("face", "flip", "dtype", "body_size", "face_size"):
        value = gallery.settings.get(name)
        if settings.get(name) is None and value is not None:
            settings[name] = tuple(value) if isinstance(value, list) else value
    settings["batch"] = settings.get("batch") or min(_BATCH, sum(1 for _ in listing))
    use_cache_of(Path(photos.checkpoint))
    embedder = Embedder(photos.checkpoint, **settings)
    check_alike(gallery, embedder.settings, str(photos.checkpoint))
    if photos.faces and embedder.face_field:
        listing = with_faces(listing, open_faces(photos.faces, embedder.face_field))
    rows = list(listing)
    if others := passed_over(listing.others()):
        print(f"note: {query}: {others}.", file=sys.stderr)
    if photos.face_image:
        if len(rows) != 1:
            raise InputError(f"--face-image is the face of one photo, --query has {len(rows)}: give --faces.")
        rows = [rows[0]._replace(face=photos.face_image)]
    return _embedded(rows, embedder)


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
