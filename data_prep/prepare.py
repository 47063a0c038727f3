"""Command line: a folder of person photos into part-label maps, faces, restored faces and a table.

python -m data_prep.prepare --images DIR --out DIR --parser FILE --detector FILE --restorer FILE
"""

from __future__ import annotations

import logging as std_logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from jax.sharding import Mesh

from data_prep import devices
from data_prep.detection.load import load_detector
from data_prep.parsing.load import load_parser
from data_prep.photos import describe_others, find_photos
from data_prep.pipeline import run_stage
from data_prep.plan import NETWORKS, Plan, parse_flags
from data_prep.records import CHUNK, StageRecords
from data_prep.restoration.align import FACE_SIZES
from data_prep.restoration.load import load_restorer
from data_prep.settings import check_out, read_settings, settle_finished, settle_settings
from data_prep.stages import detect, parse, restore
from data_prep.stages.stage import Stage
from data_prep.table import require_pyarrow, write_table
from deskpro_jax.data.images import UnreadableError, read_pixels
from deskpro_jax.errors import InputError, end_command
from deskpro_jax.runtime.accelerators import warn_of_unused_gpu
from deskpro_jax.runtime.forking import refuse_after_fork
from deskpro_jax.runtime.signals import SignalGuard

_NEEDS = {"restore": "detect"}  # the stage whose rows a stage starts from
_FOLDERS = {"parse": parse.FOLDERS, "detect": detect.FOLDERS, "restore": restore.FOLDERS}
_WITHOUT = {
    "parse": "there are no masks yet (--parser makes them); without any, training warns that L_att is off.",
    "restore": f"there are no faces yet: --restorer makes them, and --restorer {restore.LANCZOS} needs no weights.",
}
_LISTED = 100  # unreadable photos that are printed; the table has them all


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
    refuse_after_fork("photos cannot be prepared")
    require_pyarrow()
    check_out(plan.out, plan.images)
    names = find_photos(plan.images)
    makers, settings = _load(plan)
    mesh = devices.all_devices()
    batch = devices.batch_rows(mesh, plan.batch)
    plan.out.mkdir(parents=True, exist_ok=True)
    with SignalGuard() as guard, StageRecords(plan.out) as records:
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
        summary = write_table(records)
        settle_finished(records)
        for line in summary.remarks.lines():
            say(line)
        return summary.bad


def _check_need(records: StageRecords, stage: str, stages: Sequence[str]) -> None:
    need = _NEEDS.get(stage)
    if need is None or need in stages or len(records.done(need)) == len(records.chunks):
        return
    raise InputError(
        f"stage {stage} needs stage {need}, which has done {len(records.done(need))} of {len(records.chunks)} parts of "
        f"{records.out}: run it first, or together (--stages {need},{stage})."
    )


def _load(plan: Plan) -> tuple[dict[str, Callable[[StageRecords, Mesh, int], Stage]], dict[str, dict[str, Any]]]:
    """Reads the networks of the stages; returns for each stage its maker and its settings."""
    makers: dict[str, Callable[[StageRecords, Mesh, int], Stage]] = {}
    settings: dict[str, dict[str, Any]] = {}
    images = plan.images
    if "parse" in plan.stages:
        path = _required(plan.parser, "parse")
        parser = load_parser(path)
        settings["parse"] = parse.settings(parser, path)
        makers["parse"] = lambda records, mesh, rows: parse.ParseStage(parser, records, images, mesh, rows)
    if "detect" in plan.stages:
        path = _required(plan.detector, "detect")
        detector = load_detector(path)
        settings["detect"] = detect.settings(detector, path, plan.choice)
        makers["detect"] = lambda records, mesh, rows: detect.DetectStage(
            detector, plan.choice, records, images, mesh, rows
        )
    if "restore" in plan.stages:
        source = _required(plan.restorer, "restore")
        restorer, file = (None, None) if source == restore.LANCZOS else (load_restorer(Path(source)), Path(source))
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


def _required(value: Any, stage: str) -> Any:
    if value is None:
        raise InputError(f"stage {stage} needs --{NETWORKS[stage]}: give its weights, or leave the stage out.")
    return value


def _retry(records: StageRecords, stage: str, images: Path) -> None:
    """Removes records of photos that could not be read and now can, so that the stage does them again."""
    for number, names in list(records.failures(stage)):
        if any(_is_readable(images / name) for name in names):
            for later in (stage, *(name for name, need in _NEEDS.items() if need == stage)):
                records.forget(later, number)


def _is_readable(path: Path) -> bool:
    try:
        read_pixels(path)
    except UnreadableError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes masks, faces and restored faces from a folder of person photos; returns the exit code."""
    std_logging.getLogger("jax").setLevel(std_logging.WARNING)
    return end_command(lambda: _run(parse_flags(arguments, main.__doc__)), "interrupted; the same command goes on.")


def _run(plan: Plan) -> int:
    def note(text: str) -> None:
        print(f"note: {text}", file=sys.stderr)

    warn_of_unused_gpu()
    bad = prepare(plan, note)
    print(f"{plan.out}: {', '.join(plan.stages)} done")
    begun = read_settings(plan.out)["stages"]
    for stage, missing in _WITHOUT.items():
        if stage not in begun:
            note(missing)
    if others := describe_others(plan.images):
        note(f"{plan.images}: {others}.")
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
