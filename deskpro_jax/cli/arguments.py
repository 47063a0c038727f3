"""Types of arguments that several commands share, and the flags that choose the networks that embed photos."""

from __future__ import annotations

import argparse
from typing import Any

from deskpro_jax.embedding.faces import detector_file


def add_model_flags(parser: argparse._ActionsContainer) -> None:
    """Adds the flags that choose the networks that embed, and their settings, to a parser or a group of its flags."""
    parser.add_argument("--as", dest="role", choices=("body", "student", "teacher"), help="which network a file holds")
    parser.add_argument("--os-streams", choices=("abcd", "aacd"), help="OSBlock streams, if a file does not show them")
    parser.add_argument("--weights", choices=("plain", "ema"), help="plain (default) or EMA, of a file that has both")
    parser.add_argument("--face", choices=("student", "teacher", "none"), help="face network (default: as trained)")
    parser.add_argument(
        "--report",
        choices=("last", "validation", "stitched"),  # selection.REPORTS, whose import would load JAX
        help="checkpoint of a workdir (default: as trained)",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="type of computation (default: as trained)")
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="add mirrored images (default: as trained)"
    )
    parser.add_argument("--body-size", type=size, metavar="HxW", help="size of photos in pixels (default: as trained)")
    parser.add_argument("--face-size", type=size, metavar="HxW", help="size of faces in pixels (default: as trained)")
    parser.add_argument("--batch", type=positive, help="photos per batch (default: as trained)")
    parser.add_argument("--threads", type=positive, help="threads that decode (default: one per core, at most 16)")
    parser.add_argument(
        "--detector", metavar="FILE", help="weights of a RetinaFace, which detects faces in photos without one"
    )
    parser.add_argument(
        "--head-bottom", type=float, metavar="X", help="fraction of the height in which a detected face's centre lies"
    )
    parser.add_argument(
        "--head-side", type=float, metavar="X", help="fraction of the width left out on either side for the same"
    )


def positive(text: str) -> int:
    """Returns the integer >= 1 that a flag holds."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; it must be an integer >= 1")
    return int(text)


def count(text: str) -> int:
    """Returns the integer >= 0 that a flag holds."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; it must be an integer >= 0")
    return int(text)


def fraction(text: str) -> float:
    """Returns the number between 0 and 1, both excluded, that a flag holds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; it must be a number > 0 and < 1")
    return value


def size(text: str) -> tuple[int, int]:
    """Returns the height and width in pixels that a flag holds, e.g. 384x128."""
    height, cross, width = text.partition("x")
    if not cross or not height.isdecimal() or not width.isdecimal() or not int(height) or not int(width):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid size; expected HEIGHTxWIDTH in pixels, e.g. 384x128")
    return int(height), int(width)


def model_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `Embedder` that the flags of `add_model_flags` give."""
    return {
        "role": options.role,
        "os_streams": options.os_streams,
        "weights": options.weights,
        "face": options.face,
        "report": options.report,
        "dtype": options.dtype,
        "flip": options.flip,
        "body_size": options.body_size,
        "face_size": options.face_size,
        "batch": options.batch,
        "threads": options.threads,
        "detector": detector_file(options.detector) if options.detector else None,
        "head_bottom": options.head_bottom,
        "head_side": options.head_side,
    }
