"""The settings file of an output folder: settings of each stage that decide its results, refused when they change."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import deskpro_jax
from data_prep.records import RECORDS, StageRecords
from deskpro_jax.config.fields import differences, flatten
from deskpro_jax.data.schema import CLOTH_MASK
from deskpro_jax.errors import InputError
from deskpro_jax.storage.files import check_writable, read_json

SETTINGS_FILE = "prepare.json"
STAGES = ("parse", "detect", "restore")
_VERSIONED = ("jax", "jaxlib", "flax", "numpy", "pillow", "pyarrow")
_FREE = (".file",)  # a checkpoint may be called otherwise: its checksum counts


def read_settings(out: Path) -> dict[str, Any]:
    """Returns the content of `prepare.json`, nothing where the folder has none yet.

    Raises:
        InputError: it is not a settings file.
    """
    path, remedy = out / SETTINGS_FILE, f"choose another --out, or remove {out}"
    settings = read_json(path, remedy)
    if settings is not None and not isinstance(settings.get("stages"), dict):
        raise InputError(f"{path} is not a settings file (it has no stages): {remedy}.")
    return settings or {}


def check_out(out: Path, images: Path) -> None:
    """Checks that a folder can take the output of photos.

    Raises:
        InputError: it is inside the folder of photos, is not a folder, holds something else, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: choose a folder as --out.")
    inside = out.resolve().is_relative_to(images.resolve())
    if inside or images.resolve().is_relative_to(out.resolve()):
        raise InputError(
            f"{out} and {images} are inside each other: the output must not mix with the photos. Change --out."
        )
    if out.is_dir() and not read_settings(out) and any(_is_foreign(path) for path in out.iterdir()):
        raise InputError(f"{out} has content, but no {SETTINGS_FILE}: choose a new or empty folder as --out.")
    check_writable(out, "choose another folder as --out, or correct its permissions")


def _is_foreign(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != RECORDS  # which is made first, so a killed run may leave it


def settle_settings(records: StageRecords, chosen: Mapping[str, Mapping[str, Any]], images: str) -> list[str]:
    """Writes the settings of the stages that are to run, or checks that they have not changed since the stages started.

    A stage without any record holds nothing that settings could contradict: it takes the new ones.

    Args:
        records: the folder.
        chosen: settings of each stage that is to run.
        images: the folder of the photos, relative to the output.

    Returns:
        The stages that take other settings than before, whose files are no longer valid.

    Raises:
        InputError: settings of a stage that has begun differ; the message lists them with both values.
    """
    stored = read_settings(records.out)
    before: dict[str, Any] = stored.get("stages", {})
    lines, replaced = "", []
    for stage, settings in chosen.items():
        old, new = (flatten({stage: values}) for values in (before.get(stage, {}), settings))
        changed = differences(old, new, lambda name: not name.endswith(_FREE))
        if changed and records.done(stage):
            lines += changed
        elif changed:
            replaced.append(stage)
    if lines:
        raise InputError(
            f"{records.out} was started with other settings:{lines}\nUse another --out, or the settings as they were."
        )
    stages = {**before, **{stage: dict(chosen[stage]) for stage in chosen if stage in replaced or stage not in before}}
    content = {
        **_summary(stages),
        "images": images,
        "finished": finished_stages(records, stages),
        "stages": {stage: stages[stage] for stage in STAGES if stage in stages},
        "versions": stored.get("versions") or versions(),
    }
    _write(records, content)
    return replaced


def finished_stages(records: StageRecords, stages: Iterable[str]) -> list[str]:
    """Returns the stages among `stages` that have done all photos."""
    return [stage for stage in STAGES if stage in stages and len(records.done(stage)) == len(records.chunks)]


def settle_finished(records: StageRecords) -> None:
    """Writes into the settings file which stages have done all photos, once a run has ended."""
    content = read_settings(records.out)
    content["finished"] = finished_stages(records, content["stages"])
    _write(records, content)


def _write(records: StageRecords, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    records.write_file(records.out / SETTINGS_FILE, text.encode())


def versions() -> dict[str, str]:
    """Returns the versions of the packages that the results depend on."""
    installed = {"deskpro_jax": deskpro_jax.__version__, "python": platform.python_version()}
    return installed | {package: importlib.metadata.version(package) for package in _VERSIONED}


def _summary(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns in words how masks and faces are made, which becomes part of a dataset's metadata."""
    parse, detect, restore = (stages.get(stage) for stage in STAGES)
    masks = faces = "none"
    if parse:
        masks = f"SCHP, {parse['label_scheme']} labels, from {parse['file']}"
    if detect:
        faces = f"RetinaFace {detect['variant']}, from {detect['file']}, score {detect['score']} or more"
    if restore:
        faces += f"; aligned at {restore['size']} pixels; restored by {restore['restored']}"
    return {
        "label_scheme": parse["label_scheme"] if parse else CLOTH_MASK.name,  # as of datasets that have no masks
        "masks": masks,
        "faces": faces,
        "restored": restore["restored"] if restore else None,
        "parser": _checkpoint(parse),
        "detector": _checkpoint(detect),
        "restorer": _checkpoint(restore),
    }


def _checkpoint(stage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {"file": stage["file"], "sha256": stage["checkpoint"]} if stage and stage["checkpoint"] else None
