"""The command-line flags that say which networks embed photos, and how."""

from __future__ import annotations

import argparse
from typing import Any

from deskpro_jax.embedding.faces import detector_file


def add_model_flags(parser: argparse._ActionsContainer) -> None:
    """Adds the flags that say which networks embed, and how, to a parser or a group of its flags."""
    parser.add_argument("--as", dest="role", choices=("body", "student", "teacher"), help="which network a file holds")
    parser.add_argument("--os-streams", choices=("abcd", "aacd"), help="OSBlock streams, where a file hides them")
    parser.add_argument("--face", choices=("student", "teacher", "none"), help="face network (default: as trained)")
    parser.add_argument(
        "--report",
        choices=("last", "validation", "stitched"),  # selection.REPORTS, whose import would load JAX
        help="checkpoint of a workdir (default: as trained)",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the computation (default: as trained)")
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="add mirrored images (default: as trained)"
    )
    parser.add_argument("--body-size", type=size, metavar="HxW", help="of photos, in pixels (default: as trained)")
    parser.add_argument("--face-size", type=size, metavar="HxW", help="of faces, in pixels (default: as trained)")
    parser.add_argument("--batch", type=positive, help="photos computed at a time (default: as trained)")
    parser.add_argument("--threads", type=positive, help="that decode (default: one a processor, 16 at most)")
    parser.add_argument(
        "--detector", metavar="FILE", help="weights of a RetinaFace, to look for faces where none is given"
    )


def positive(text: str) -> int:
    """Reads a whole number of at least 1 from a flag."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """Reads height and width from a flag, as 384x128."""
    height, cross, width = text.partition("x")
    if not cross or not height.isdecimal() or not width.isdecimal() or not int(height) or not int(width):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected height and width, as 384x128")
    return int(height), int(width)


def model_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `Embedder` that flags of `add_model_flags` ask for."""
    return {
        "role": options.role,
        "os_streams": options.os_streams,
        "face": options.face,
        "report": options.report,
        "dtype": options.dtype,
        "flip": options.flip,
        "body_size": options.body_size,
        "face_size": options.face_size,
        "batch": options.batch,
        "threads": options.threads,
        "detector": detector_file(options.detector) if options.detector else None,
    }
