"""The teacher of a run: whether one is needed, and reading one that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from deskpro_jax.checkpoints.selection import Steps, read_variables, trained_classes
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.methods.deskpro import DeSKPro, teacher_model
from deskpro_jax.runtime import sharding
from deskpro_jax.train.initial_weights import reorder_classes
from deskpro_jax.weights.families import Stream
from deskpro_jax.weights.load import load
from deskpro_jax.workdir.source import open_source, refusal
from deskpro_jax.workdir.stored import RECORD, read_json

_ADVICE = "name a teacher trained on this training split, or start one from these weights with init.teacher"


def needs_teacher(config: ml_collections.ConfigDict) -> bool:
    """Returns whether a run involves the teacher: for L_fkp, or as the face stream itself."""
    return config.model.face == "teacher" or (config.model.face == "student" and config.loss.alpha > 0)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises InputError when a run needs a teacher that it may neither train nor is given."""
    if needs_teacher(config) and not config.teacher.train and not config.teacher.checkpoint:
        raise InputError(
            "teacher.checkpoint is empty and teacher.train is False: name the released teacher (its .pth file, or a"
            " workdir) in teacher.checkpoint, or set teacher.train=True to train one first."
        )


def read_given(config: ml_collections.ConfigDict, module: DeSKPro, split: ReIDSplit, mesh: Mesh) -> tuple[Any, Steps]:
    """Reads the teacher that `teacher.checkpoint` names.

    Args:
        config: the whole configuration.
        module: the teacher's model.
        split: the training split, whose identities the teacher has to know.
        mesh: devices to put it on.

    Returns:
        Its variables and their step or steps, 0 for a weights file.

    Raises:
        MissingInputError: there is no such file or workdir.
        InputError: it is no teacher of this model and these identities.
    """
    if config.init.teacher:
        logging.warning("init.teacher is not used: teacher.checkpoint gives a trained teacher")
    given = Path(config.teacher.checkpoint).expanduser()
    steps: Steps = 0
    if given.is_file():
        try:
            variables, class_order = _read_file(given, module)
        except InputError as error:
            raise refusal("teacher.checkpoint", given, error) from error
    else:
        folder = _folder(given)
        origin = read_json(folder.parent.parent / RECORD)
        if origin is None:  # trained here
            return read_variables(folder, module, mesh, config.eval.report)
        variables, steps = read_variables(folder, module, sharding.without_model_axis(mesh), config.eval.report)
        variables, class_order = jax.device_get(variables), origin.get("class_order", "text")
    for note in reorder_classes(variables["params"]["face_stream"], class_order, split):
        logging.info("teacher %s: %s", given, note)
    return sharding.put_variables(mesh, variables), steps


def read(config: ml_collections.ConfigDict, folder: Path, mesh: Mesh) -> tuple[DeSKPro, Any, Steps]:
    """Reads the trained teacher of a workdir for evaluation, whatever number of identities it was trained on.

    Args:
        config: the whole configuration; `teacher.checkpoint` goes before the workdir's own teacher.
        folder: the workdir.
        mesh: devices to put it on.

    Returns:
        The model, its variables and their step.

    Raises:
        MissingInputError: there is none.
        InputError: the file of `teacher.checkpoint` holds no teacher of this model.
    """
    given = Path(config.teacher.checkpoint).expanduser() if config.teacher.checkpoint else folder
    if given.is_file():
        stream = next((s for s in open_source(given).found.streams if s.role in ("teacher", "")), None)
        module = teacher_model(config.model, (stream.identities if stream else None) or 1)
        try:
            variables, _ = _read_file(given, module)
        except InputError as error:
            raise refusal("teacher.checkpoint", given, error) from error
        return module, sharding.put_variables(mesh, variables), 0
    place = _folder(given) if config.teacher.checkpoint else folder / "teacher" / "checkpoints"
    module = teacher_model(config.model, trained_classes(place) or 1)
    return module, *read_variables(place, module, mesh, config.eval.report)


def _folder(given: Path) -> Path:
    for candidate in (given / "teacher" / "checkpoints", given / "checkpoints", given):
        if candidate.is_dir() and candidate.name == "checkpoints":
            return candidate
    raise MissingInputError(
        f"teacher.checkpoint is {given}; expected a workdir with teacher/checkpoints, the teacher/ folder of one, or a"
        " weights file."
    )


def _read_file(path: Path, module: DeSKPro) -> tuple[dict[str, Any], str]:
    """Returns the teacher in a weights file, and how its classifiers count identities."""
    source = open_source(path)
    found = source.found
    if found.family == "osnet":
        raise InputError(f"it holds an OSNet, which knows nobody of this dataset: {_ADVICE}.")
    stream = next((s for s in found.streams if s.role in ("teacher", "")), None)
    if stream is None:
        raise InputError(f"it holds {' and '.join(s.role for s in found.streams)}, no teacher: {_ADVICE}.")
    _check_fits(stream, module)
    loaded = load(found, os_streams=module.streams)
    for note in loaded.notes:
        logging.info("teacher %s: %s", path.name, note)
    variables = loaded.variables[stream.role]
    return {collection: {"face_stream": tree} for collection, tree in variables.items()}, source.class_order


def _check_fits(stream: Stream, module: DeSKPro) -> None:
    if stream.identities != module.num_classes:
        raise InputError(
            f"its classifiers know {stream.identities} identities, the training split has {module.num_classes}:"
            f" {_ADVICE}."
        )
    for field, own, wanted in (
        ("model.backbone", stream.backbone, module.backbone),
        ("model.feature_dim", stream.feature_dim, module.feature_dim),
    ):
        if own != wanted:
            raise InputError(f"it has {field} {own}, the configuration {wanted}: set the field, or {_ADVICE}.")
    if stream.attention != "none":
        raise InputError(f"it is a body network (it has a CSA module), no teacher: {_ADVICE}.")
