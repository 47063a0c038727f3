"""Command line: ranks a gallery of embeddings by similarity to query photos.

python -m deskpro_jax.search --gallery embeddings.parquet --query photo.jpg --checkpoint runs/celeb -k 20
"""

from __future__ import annotations

import argparse
import logging as std_logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from deskpro_jax.cli.arguments import add_model_flags, fraction, model_options, positive
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError, MissingInputError, end_command
from deskpro_jax.runtime.accelerators import warn_of_unused_gpu
from deskpro_jax.search import approximate
from deskpro_jax.search.matches import FORMATS, Query, write_matches
from deskpro_jax.search.queries import Photos, check_alike, open_queries
from deskpro_jax.search.search import search
from deskpro_jax.search.special_identities import SpecialIdentities
from deskpro_jax.search.thresholds import Thresholds, calibrate, read_thresholds, sentences, write_thresholds
from deskpro_jax.search.tracklet_set import TrackletSet
from deskpro_jax.storage.files import check_writable

METHODS = ("exact", *approximate.METHODS)
_HALF = 0.5


def _thresholds(options: argparse.Namespace, gallery: EmbeddingSet, special: SpecialIdentities) -> Thresholds | None:
    path = None if options.thresholds is None else Path(options.thresholds).expanduser()
    if options.calibrate is None:
        thresholds = None if path is None else read_thresholds(path)
    else:
        labelled = type(gallery)(options.calibrate, streams=options.streams)
        check_alike(gallery, labelled.settings, str(options.calibrate))
        thresholds = calibrate(labelled, options.false_accepts, special=special)
        if path is not None:
            write_thresholds(path, thresholds)
    if thresholds is not None:
        check_alike(gallery, {"model_checksum": thresholds.model_checksum}, str(path or options.calibrate))
        if thresholds.missing_face != gallery.similarity.missing_face:
            raise InputError(
                f"{path or options.calibrate}: photos without a face are compared by {thresholds.missing_face!r} there,"
                f" by {gallery.similarity.missing_face!r} in {gallery.path} (eval.missing_face): embed both with one"
                " checkpoint."
            )
        for line in sentences(thresholds):
            print(line, file=sys.stderr)
    return thresholds


def _index(options: argparse.Namespace, gallery: EmbeddingSet) -> approximate.GalleryIndex | None:
    if options.method == "exact":
        if options.index or options.effort:
            raise InputError("--index and --effort go with --method ivf or hnsw.")
        return None
    folder = None if options.index is None else Path(options.index).expanduser()
    if folder is None or not folder.exists():
        print(f"building the {options.method} index of {gallery.path}", file=sys.stderr)
        return approximate.build_index(gallery, options.method, folder)
    index = approximate.open_index(gallery, folder)
    if index.method != options.method:
        raise InputError(f"{folder} is an index of method {index.method}, not {options.method}: correct one of them.")
    return index


def _streams(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not all(names) or len({name.partition(":")[0] for name in names}) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; expected face,body or face:7x512,body:6x2048")
    return names


def _identities(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; expected identities joined by commas")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Searches a gallery of embeddings for the people on photos; returns the exit code."""
    parser = command_parser("search", main.__doc__)
    parser.add_argument("--gallery", required=True, help="embeddings that deskpro_jax.embed wrote")
    parser.add_argument("--query", required=True, help="embeddings; or photos, as deskpro_jax.embed takes them")
    parser.add_argument("-k", type=positive, default=20, help="images per query (default: 20)")
    parser.add_argument(
        "--by-tracklet",
        action="store_true",
        help="search tracklets: the mean of a tracklet's embeddings in place of its photos (column tracklet)",
    )
    parser.add_argument("--method", choices=METHODS, default="exact", help="exact, or approximate by faiss")
    parser.add_argument("--index", help="folder of the approximate index; built if it does not exist")
    parser.add_argument("--effort", type=positive, help="effort of approximate search: lists (ivf), candidates (hnsw)")
    parser.add_argument("--calibrate", metavar="EMBEDDINGS", help="labelled embeddings, to choose thresholds from")
    parser.add_argument("--false-accepts", type=fraction, default=0.01, help="false accept rate of --calibrate (0.01)")
    parser.add_argument("--thresholds", metavar="FILE.json", help="written with --calibrate, read without")
    parser.add_argument(
        "--junk",
        type=_identities,
        default=(),
        metavar="ID[,ID]",
        help="identities of images to ignore, in gallery and --calibrate; Market-1501: --junk=-1",
    )
    parser.add_argument(
        "--distractors",
        type=_identities,
        default=(),
        metavar="ID[,ID]",
        help="identities in --calibrate that match nobody; Market-1501: --distractors=0000",
    )
    parser.add_argument("--format", choices=FORMATS, help="format of the output (default: by --out, else table)")
    parser.add_argument("--out", type=Path, help="file to write instead of the terminal")
    parser.add_argument(
        "--streams",
        type=_streams,
        help="streams of embeddings by another program: face,body or face:7x512,body:6x2048 (parts x length)",
    )
    photos = parser.add_argument_group("query photos")
    photos.add_argument("--checkpoint", help="the networks that the gallery was embedded with")
    photos.add_argument(
        "--faces", help="folder with the photos' faces: of the data preparation, or named as the photos"
    )
    photos.add_argument("--face-image", help="the face of a single query photo")
    photos.add_argument("--root", help="folder that names and relative paths start from")
    add_model_flags(parser.add_argument_group("networks (default: as the gallery was embedded)"))
    options = parser.parse_args(arguments)
    std_logging.getLogger("absl").setLevel(std_logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    return end_command(lambda: _run(options))


def _counted(queries: Iterator[Query], k: int, shorter: list[int]) -> Iterator[Query]:
    """Yields the queries, and adds the number of matches of each that has fewer than `k` to `shorter`."""
    for query in queries:
        if len(query.matches) < k:
            shorter.append(len(query.matches))
        yield query


def _run(options: argparse.Namespace) -> int:
    if options.checkpoint:
        warn_of_unused_gpu()
    if options.by_tracklet and options.method != "exact":
        raise InputError("--by-tracklet searches exactly: leave --method out.")
    opened: type[EmbeddingSet] = TrackletSet if options.by_tracklet else EmbeddingSet
    gallery = opened(options.gallery, streams=options.streams)
    if options.out is not None and not options.out.absolute().parent.is_dir():
        raise MissingInputError(f"no folder {options.out.absolute().parent}: create it, or correct --out.")
    for path in (options.out, options.index, None if options.calibrate is None else options.thresholds):
        if path is not None and not Path(path).expanduser().exists():
            check_writable(Path(path).expanduser().absolute().parent, "give another path, or correct its permissions")
    if gallery.similarity.missing_face == "zeros" and len(gallery.streams) > 1:
        similarity = gallery.similarity
        most = similarity.select(similarity.always_present()).total_weight / similarity.total_weight
        reach = "half the similarity" if most == _HALF else f"a similarity of {most:.2f}"
        print(
            "note: as its networks were evaluated (eval.missing_face: zeros), a photo without a face reaches"
            f" {reach} at most.",
            file=sys.stderr,
        )
    special = SpecialIdentities(options.junk, options.distractors)
    if both := [text for text in options.junk if special.is_distractor(text)]:
        raise InputError(f"--junk and --distractors both list {both[0]}: leave it out of one of them.")
    if options.junk:
        identities = gallery.columns()["identity"]
        count = sum(map(special.is_junk, identities))
        print(f"note: --junk leaves out {count} of the {len(identities)} images of the gallery.", file=sys.stderr)
    thresholds = _thresholds(options, gallery, special)
    photos = (
        Photos(options.checkpoint, model_options(options), options.faces, options.face_image, options.root)
        if options.checkpoint
        else None
    )
    queries = open_queries(options.query, gallery, photos, options.streams)
    matches = search(
        gallery,
        queries,
        options.k,
        index=_index(options, gallery),
        effort=options.effort,
        thresholds=thresholds,
        special=special,
    )
    shorter: list[int] = []
    write_matches(_counted(matches, options.k, shorter), options.out, options.format)
    if shorter:
        print(
            f"note: {len(shorter)} of {len(queries.names)} queries have fewer matches than -k {options.k} (the fewest:"
            f" {min(shorter)}): no more images of the gallery can be compared with them.",
            file=sys.stderr,
        )
    for path, reason in queries.unreadable.items():
        print(f"{path} could not be read and was not searched for: {reason}", file=sys.stderr)
    return 1 if queries.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
