"""Command line: embeds any number of photos into a file, with one or several processes.

python -m deskpro_jax.embed --checkpoint runs/celeb --images photos --faces prepared --out embeddings.parquet
"""

from __future__ import annotations

import argparse
import logging as std_logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from deskpro_jax.cli.arguments import add_model_flags, model_options, positive
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.data.photo_names import passed_over
from deskpro_jax.embedding.faces import open_faces, with_faces
from deskpro_jax.embedding.files import FORMATS, STORED
from deskpro_jax.embedding.job import Unreadable, Work
from deskpro_jax.embedding.photo_list import Listing, list_photos
from deskpro_jax.errors import InputError, end_command
from deskpro_jax.runtime.accelerators import warn_of_unused_gpu
from deskpro_jax.storage.checksums import file_sha256
from deskpro_jax.storage.files import check_writable
from deskpro_jax.storage.parquet import require_pyarrow

PART = 2048  # photos; 7,168 float32 numbers each make 59 MB
_LISTED = 100  # unreadable photos that are printed


def main(arguments: Sequence[str] | None = None) -> int:
    """Embeds photos into Parquet, or .npy with JSON lines; returns the exit code."""
    parser = command_parser("embed", main.__doc__)
    parser.add_argument(
        "--checkpoint", required=True, help="a workdir, a weights file (safetensors, PyTorch), or pretrained:NAME"
    )
    parser.add_argument(
        "--images", required=True, help="a folder, a pattern, a photo, a .txt, or a .csv or .parquet with a column path"
    )
    parser.add_argument("--out", required=True, type=Path, help="FILE.parquet, FILE.npy, or a folder for parts")
    parser.add_argument(
        "--faces", help="folder with the photos' faces: of the data preparation, or named as the photos"
    )
    parser.add_argument("--root", help="folder that names and relative paths start from (default: that of --images)")
    parser.add_argument("--format", choices=FORMATS, help="format of the parts in a folder (default: parquet)")
    parser.add_argument("--stored", choices=STORED, default="float32", help="type of the embeddings in the file")
    parser.add_argument("--part", type=positive, default=PART, help=f"photos per part (default: {PART})")
    parser.add_argument("--process", type=int, default=0, help="number of this process, from 0; with --processes")
    parser.add_argument("--processes", type=positive, default=1, help="how many processes share the work (default: 1)")
    add_model_flags(parser)
    options = parser.parse_args(arguments)
    std_logging.getLogger("absl").setLevel(std_logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    return end_command(lambda: _run(options), "interrupted; the same command continues from the last finished part.")


def _run(options: argparse.Namespace) -> int:
    warn_of_unused_gpu()
    form = options.format or (options.out.suffix[1:] if options.out.suffix[1:] in FORMATS else FORMATS[0])
    if form == "parquet":
        require_pyarrow()
    if not 0 <= options.process < options.processes:
        raise InputError(
            f"--process is {options.process} of {options.processes}; expected 0 to {options.processes - 1}."
        )
    check_writable(options.out.absolute().parent, "give another --out, or correct its permissions")
    photos = list_photos(options.images, options.root)
    for note in photos.notes:
        _note(note)
    from deskpro_jax.embedding.embedder import Embedder
    from deskpro_jax.embedding.write_parts import embed_photos
    from deskpro_jax.runtime.compilation import use_cache_of

    use_cache_of(Path(options.checkpoint))
    embedder = Embedder(options.checkpoint, **model_options(options))
    work = Work(options.out, form, -(-options.part // embedder.batch) * embedder.batch)
    settings = embedder.settings | {"stored": options.stored, "detector": _checksum(options.detector)}
    for name in ("head_bottom", "head_side"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    if embedder.face_field is None:
        photos = _without_faces(photos)
    elif options.faces:
        folder = open_faces(options.faces, embedder.face_field)
        if unmatched := folder.unmatched(photos):
            _note(
                f"{len(unmatched):,} faces in {folder.folder} belong to no photo of {options.images}, the first is"
                f" {unmatched[0]}: faces are named as their photos, relative to the same folder (--root)."
            )
        photos = with_faces(photos, folder)
    if not embedder.sizes_known:
        body, face = ("x".join(map(str, s)) for s in (embedder.body_size, embedder.face_size))
        _note(f"the weights do not record the size of images: the paper's is used, {body} and {face} for faces.")
    todo = work.begin(photos, settings, options.process, options.processes)
    _explain_faces(embedder.face_field, work, options)
    name = "embedding" if options.processes == 1 else f"embedding, process {options.process} of {options.processes}"
    if todo:
        for line in embed_photos(embedder, work, todo, name=name).lines():
            _note(line)
    summary = work.finish()
    if summary is None:
        print(f"{options.out}: the parts of process {options.process} are done, other processes have some left.")
        return 0
    faces = "" if summary.with_face is None else f", {summary.with_face} of them with a face"
    print(f"{options.out}: {summary.rows} embeddings of {embedder.dimension} numbers{faces}")
    if others := passed_over(photos.others()):
        _note(f"{options.images}: {others}.")
    return _report(summary.unreadable, options.out)


def _without_faces(photos: Listing) -> Listing:
    return Listing(photos.source, lambda: (photo._replace(face=None) for photo in photos), photos.others)


def _explain_faces(face_field: str | None, work: Work, options: argparse.Namespace) -> None:
    if face_field is None and (options.faces or options.detector):
        _note("the network has no face stream: faces are not used.")
    elif face_field is not None and not work.with_face and options.faces and not options.detector:
        _note(
            f"{options.faces} has a face for none of the {work.count} photos, so only the body stream is embedded: are"
            " its files named as the photos, relative to the same folder (--root)?"
        )
    elif face_field is not None and not work.with_face and not options.detector:
        _note("no faces (--faces): only the body stream is embedded, the embeddings of the face are zeros.")


def _report(unreadable: Sequence[Unreadable], out: Path) -> int:
    if not unreadable:
        return 0
    print(f"{len(unreadable)} photos could not be read and have no embedding:", file=sys.stderr)
    for photo in unreadable[:_LISTED]:
        print(f"  {photo.path}: {photo.reason}", file=sys.stderr)
    if len(unreadable) > _LISTED:
        print(f"  and {len(unreadable) - _LISTED} more", file=sys.stderr)
    print("Replace them and run the command again: only the parts with gaps are repeated.", file=sys.stderr)
    return 1


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _checksum(path: str | None) -> str | None:
    return None if path is None else file_sha256(Path(path).expanduser())


if __name__ == "__main__":
    sys.exit(main())
