"""The plan of a run of `prepare`, and reading it from flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.detection.person import AUTO, Choice
from data_prep.restoration.align import FACE_SIZES
from data_prep.settings import STAGES
from data_prep.stages import restore
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.errors import InputError
from deskpro_jax.runtime import cores

NETWORKS = dict(zip(STAGES, ("parser", "detector", "restorer"), strict=True))


@dataclass(frozen=True)
class Plan:
    """The stages of a run with their files and options.

    Attributes:
        images: the folder of the photos.
        out: the output folder.
        parser, detector, restorer: weights files; the restorer may be `restore.LANCZOS`.
        stages: some of `STAGES`, in their order.
        choice: how faces are detected and chosen.
        face_size: side of the faces in pixels, with `restore.LANCZOS` only.
        batch: photos of a batch over all devices; None leaves it to the kind of device.
        workers: threads that decode and write.
    """

    images: Path
    out: Path
    parser: Path | None = None
    detector: Path | None = None
    restorer: Path | str | None = None
    stages: tuple[str, ...] = STAGES
    choice: Choice = field(default_factory=Choice)
    face_size: int | None = None
    batch: int | None = None
    workers: int = max(2, cores.count())


def plan_stages(listed: str | None, weights: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the stages to run, in their order.

    Args:
        listed: their names with commas, as in --stages; None takes those whose weights are given.
        weights: parser, detector and restorer by name, None where there is none.

    Raises:
        InputError: a name is unknown, or there is nothing to do.
    """
    if listed is None:
        stages = tuple(stage for stage in STAGES if weights[NETWORKS[stage]] is not None)
        if not stages:
            raise InputError("nothing to do: give --parser, --detector or --restorer.")
        return stages
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if unknown := [name for name in names if name not in STAGES]:
        raise InputError(f"--stages has {unknown[0]!r}; expected some of {','.join(STAGES)}.")
    if not names:
        raise InputError(f"--stages is empty; expected some of {','.join(STAGES)}.")
    return tuple(stage for stage in STAGES if stage in names)


def _enlarge(text: str) -> float | None:
    try:
        return None if text == AUTO else float(text)
    except ValueError:
        raise InputError(f"--enlarge is {text!r}; expected {AUTO} or a number.") from None


def parse_flags(arguments: Sequence[str] | None, description: str | None) -> Plan:
    """Returns the plan that flags ask for.

    Args:
        arguments: the flags; None for those of the process.
        description: of the command, for --help.

    Raises:
        InputError: a value is out of range, or flags do not go together.
    """
    parser = command_parser("prepare", description)
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder of photos, each of one person"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder; a stopped run resumes in it"
    )
    parser.add_argument("--parser", type=Path, metavar="FILE", help="SCHP weights: writes part-label maps")
    parser.add_argument("--detector", type=Path, metavar="FILE", help="RetinaFace weights: finds faces")
    parser.add_argument(
        "--restorer", metavar=f"FILE|{restore.LANCZOS}", help="GPEN weights, or plain upscaling: writes faces"
    )
    parser.add_argument(
        "--stages", metavar="LIST", help=f"of {','.join(STAGES)} (default: those whose weights are given)"
    )
    parser.add_argument(
        "--batch", type=int, help="photos at a time over all devices (default: 8 on a CPU, 32 per accelerator)"
    )
    parser.add_argument(
        "--workers", type=int, default=Plan.workers, help="threads that decode and write (default: %(default)s)"
    )
    parser.add_argument(
        "--enlarge",
        default=AUTO,
        help=f"factor before detection, as 2 to 4 for crops; {AUTO}: by size (default)",
    )
    default = Choice()
    for flag, value, text in (
        ("--score", default.score, "lowest score of the person's face"),
        ("--box-score", default.box_score, "boxes score more than this to be in the table"),
        ("--nms", default.nms, "overlap above which only the better of two boxes is kept"),
        ("--head-bottom", default.head_bottom, "fraction of the height in which the face's centre lies"),
        ("--head-side", default.head_side, "fraction of the width left out on either side for the face's centre"),
    ):
        parser.add_argument(flag, type=float, default=value, metavar="X", help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--face-size", type=int, choices=FACE_SIZES, help=f"pixels, with --restorer {restore.LANCZOS} (default: 256)"
    )
    o = parser.parse_args(arguments)
    for flag, value in (("batch", o.batch), ("workers", o.workers)):
        if value is not None and value < 1:
            raise InputError(f"--{flag} is {value}; expected 1 or more.")
    choice = Choice(_enlarge(o.enlarge), o.box_score, o.nms, o.score, o.head_bottom, o.head_side)
    stages = plan_stages(o.stages, vars(o))
    return Plan(
        o.images.expanduser(),
        o.out.expanduser(),
        o.parser,
        o.detector,
        o.restorer,
        stages,
        choice,
        o.face_size,
        o.batch,
        o.workers,
    )
