"""Command line: a folder of person photos into part-label maps, faces, restored faces and a table.

python -m data_prep.prepare --images DIR --out DIR --parser FILE --detector FILE --restorer FILE
"""

from __future__ import annotations

import argparse
import logging as std_logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import logging
from jax.sharding import Mesh

from data_prep import devices
from data_prep.detection.load import load_detector
from data_prep.parsing.load import load_parser
from data_prep.photos import UnreadableError, find_photos, read_photo
from data_prep.pipeline import Stopped, run_stage
from data_prep.records import CHUNK, Records
from data_prep.restoration.load import load_restorer
from data_prep.settings import STAGES, check_out, read_settings, settle_finished, settle_settings
from data_prep.stages import detect, parse, restore
from data_prep.stages.stage import Stage
from data_prep.table import require_pyarrow, write_table
from deskpro_jax.errors import InputError, MissingInputError, RunError, exit_code
from deskpro_jax.preemption import SignalGuard

FACE_SIZES = (256, 512)
_NEEDS = {"restore": "detect"}  # the stage whose rows a stage starts from
_NETWORKS = dict(zip(STAGES, ("parser", "detector", "restorer"), strict=True))
_FOLDERS = {"parse": parse.FOLDERS, "detect": detect.FOLDERS, "restore": restore.FOLDERS}
_WITHOUT = {
    "parse": "there are no masks yet (--parser makes them); without any, training says that L_att is off.",
    "restore": f"there are no faces yet: --restorer makes them, and --restorer {restore.LANCZOS} needs no weights.",
}
_LISTED = 100  # unreadable photos that are printed; the table has them all


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        images: the folder of the photos.
        out: the output folder.
        parser, detector, restorer: weights files; the restorer may be `restore.LANCZOS`.
        stages: some of `STAGES`, in their order.
        choice: how faces are looked for and chosen.
        face_size: side of the faces in pixels, with `restore.LANCZOS` alone.
        batch: photos of a batch over all devices; None leaves it to the kind of device.
        workers: threads that decode and write.
    """

    images: Path
    out: Path
    parser: Path | None = None
    detector: Path | None = None
    restorer: Path | str | None = None
    stages: tuple[str, ...] = STAGES
    choice: detect.Choice = field(default_factory=detect.Choice)
    face_size: int | None = None
    batch: int | None = None
    workers: int = max(2, os.cpu_count() or 1)


def prepare(plan: Plan, say: Callable[[str], None] = logging.info) -> list[tuple[str, str]]:
    """Runs the stages of a plan over the photos that they have not done yet, and writes the table.

    Args:
        plan: what to do.
        say: called with what is worth knowing.

    Returns:
        The photos that could not be used, each with the reason.

    Raises:
        Stopped: on SIGTERM or Ctrl-C; the same plan goes on from there.
        MissingInputError, InputError: a file, folder, flag or setting does not fit.
        RunError: another process is at work in the folder, or its records are damaged.
    """
    require_pyarrow()
    check_out(plan.out, plan.images)
    names = find_photos(plan.images)
    makers, settings = _load(plan)
    mesh = devices.all_devices()
    batch = devices.batch_rows(mesh, plan.batch)
    plan.out.mkdir(parents=True, exist_ok=True)
    with SignalGuard() as guard, Records(plan.out) as records:
        new, gone = records.settle_photos(names, max(CHUNK, batch))
        if new or gone:
            say(f"{plan.images}: {new} photos came since the last run, {gone} are gone.")
        images = Path(os.path.relpath(plan.images.resolve(), plan.out.resolve())).as_posix()
        for stage in settle_settings(records, settings, images):
            for folder in _FOLDERS[stage]:  # made with other settings, by a run that recorded nothing
                shutil.rmtree(plan.out / folder, ignore_errors=True)
        for stage in plan.stages:
            _retry(records, stage, plan.images)
            _check_need(records, stage, plan.stages)
        rows = devices.batch_rows(mesh, min(batch, max(map(len, records.chunks))))
        for stage in plan.stages:
            run_stage(
                makers[stage](records, mesh, rows), records, guard, workers=plan.workers, before=_NEEDS.get(stage)
            )
        bad = write_table(records)
        settle_finished(records)
        return bad


def _check_need(records: Records, stage: str, stages: Sequence[str]) -> None:
    need = _NEEDS.get(stage)
    if need is None or need in stages or len(records.done(need)) == len(records.chunks):
        return
    raise InputError(
        f"stage {stage} needs stage {need}, which has done {len(records.done(need))} of {len(records.chunks)} parts of "
        f"{records.out}: run it first, or together (--stages {need},{stage})."
    )


def _load(plan: Plan) -> tuple[dict[str, Callable[[Records, Mesh, int], Stage]], dict[str, dict[str, Any]]]:
    """Reads the networks of the stages; returns for each what makes the stage, and its settings."""
    makers: dict[str, Callable[[Records, Mesh, int], Stage]] = {}
    settings: dict[str, dict[str, Any]] = {}
    images = plan.images
    if "parse" in plan.stages:
        path = _given(plan.parser, "parse")
        parser = load_parser(path)
        settings["parse"] = parse.settings(parser, path)
        makers["parse"] = lambda records, mesh, rows: parse.ParseStage(parser, records, images, mesh, rows)
    if "detect" in plan.stages:
        path = _given(plan.detector, "detect")
        detector = load_detector(path)
        settings["detect"] = detect.settings(detector, path, plan.choice)
        makers["detect"] = lambda records, mesh, rows: detect.DetectStage(
            detector, plan.choice, records, images, mesh, rows
        )
    if "restore" in plan.stages:
        given = _given(plan.restorer, "restore")
        restorer, file = (None, None) if given == restore.LANCZOS else (load_restorer(Path(given)), Path(given))
        if restorer is not None and plan.face_size is not None:
            raise InputError(f"--face-size goes with --restorer {restore.LANCZOS}; {file} has a size of its own.")
        size = restorer.size if restorer is not None else plan.face_size or FACE_SIZES[0]
        faces = settings.get("detect") or read_settings(plan.out).get("stages", {}).get("detect")
        if faces is None:
            raise InputError(f"stage restore needs stage detect, which {plan.out} has not begun: give --detector.")
        settings["restore"] = restore.settings(restorer, file, size, faces)
        makers["restore"] = lambda records, mesh, rows: restore.RestoreStage(
            restorer, size, records, images, mesh, rows
        )
    return makers, settings


def _given(value: Any, stage: str) -> Any:
    if value is None:
        raise InputError(f"stage {stage} needs --{_NETWORKS[stage]}: give its weights, or leave the stage out.")
    return value


def _retry(records: Records, stage: str, images: Path) -> None:
    """Has a stage do again what holds photos that could not be read and now can."""
    for number, names in list(records.failures(stage)):
        if any(_is_readable(images / name) for name in names):
            for later in (stage, *(name for name, need in _NEEDS.items() if need == stage)):
                records.forget(later, number)


def _is_readable(path: Path) -> bool:
    try:
        read_photo(path)
    except UnreadableError:
        return False
    return True


def plan_stages(listed: str | None, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the stages to run, in their order.

    Args:
        listed: their names with commas, as in --stages; None takes those whose network is given.
        given: parser, detector and restorer, None where there is none.

    Raises:
        InputError: a name is unknown, or there is nothing to do.
    """
    if listed is None:
        stages = tuple(stage for stage in STAGES if given[_NETWORKS[stage]] is not None)
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
        return None if text == detect.AUTO else float(text)
    except ValueError:
        raise InputError(f"--enlarge is {text!r}; expected {detect.AUTO} or a number.") from None


def _parse(arguments: Sequence[str] | None) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m data_prep.prepare", description=main.__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of photos, each of one person")
    parser.add_argument("--out", type=Path, required=True, help="output folder; a run that was stopped goes on in it")
    parser.add_argument("--parser", type=Path, metavar="FILE", help="SCHP weights: writes part-label maps")
    parser.add_argument("--detector", type=Path, metavar="FILE", help="RetinaFace weights: finds faces")
    parser.add_argument(
        "--restorer", metavar=f"FILE|{restore.LANCZOS}", help="GPEN weights, or plain upscaling: writes faces"
    )
    parser.add_argument(
        "--stages", metavar="LIST", help=f"of {','.join(STAGES)} (default: those whose weights are given)"
    )
    parser.add_argument("--batch", type=int, help="photos at a time over all devices (default: 8 on CPU, else 32 each)")
    parser.add_argument(
        "--workers", type=int, default=Plan.workers, help="threads that decode and write (default: %(default)s)"
    )
    parser.add_argument(
        "--enlarge",
        default=detect.AUTO,
        help=f"factor before detection, as 2 to 4 for crops; {detect.AUTO}: by size (default)",
    )
    default = detect.Choice()
    for flag, value, text in (
        ("--score", default.score, "least score of the person's face"),
        ("--box-score", default.box_score, "boxes score more than this to be in the table"),
        ("--nms", default.nms, "overlap above which only the better of two boxes is kept"),
        ("--head-bottom", default.head_bottom, "share of the height in which the face's centre lies"),
        ("--head-side", default.head_side, "share of the width left out on either side for the face's centre"),
    ):
        parser.add_argument(flag, type=float, default=value, help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--face-size", type=int, choices=FACE_SIZES, help=f"pixels, with --restorer {restore.LANCZOS} (default: 256)"
    )
    o = parser.parse_args(arguments)
    for flag, value in (("batch", o.batch), ("workers", o.workers)):
        if value is not None and value < 1:
            raise InputError(f"--{flag} is {value}; expected 1 or more.")
    choice = detect.Choice(_enlarge(o.enlarge), o.box_score, o.nms, o.score, o.head_bottom, o.head_side)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes masks, faces and restored faces from a folder of person photos; returns the exit code."""
    std_logging.getLogger("jax").setLevel(std_logging.WARNING)

    def note(text: str) -> None:
        print(f"note: {text}", file=sys.stderr)

    try:
        plan = _parse(arguments)
        bad = prepare(plan, note)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on.", file=sys.stderr)
        return 1
    except (InputError, MissingInputError, RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    print(f"{plan.out}: {', '.join(plan.stages)} done")
    begun = read_settings(plan.out)["stages"]
    for stage, missing in _WITHOUT.items():
        if stage not in begun:
            note(missing)
    if bad:
        print(f"error: {len(bad)} photos could not be used:", file=sys.stderr)
        for name, reason in bad[:_LISTED]:
            print(f"  {name}: {reason}", file=sys.stderr)
        if len(bad) > _LISTED:
            print(f"  and {len(bad) - _LISTED} more, see the column status of the table.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
