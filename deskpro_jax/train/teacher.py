"""A teacher that was trained elsewhere: whether a run may have one, and reading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from deskpro_jax.checkpoints.selection import Steps, read_variables
from deskpro_jax.data.load.dataset import ReIDSplit, clothes_classes, train_classes
from deskpro_jax.errors import InputError
from deskpro_jax.methods.deskpro import needs_teacher
from deskpro_jax.models.contract import PhaseSpec, image_sizes
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.runtime import sharding
from deskpro_jax.storage.files import read_json
from deskpro_jax.train.initial_weights import reorder_classes, start_of_method
from deskpro_jax.weights.families import Stream
from deskpro_jax.weights.load import load
from deskpro_jax.weights.pretrained import find_weights
from deskpro_jax.workdir.networks import teacher_checkpoints
from deskpro_jax.workdir.record import CONVERSION_FILE
from deskpro_jax.workdir.source import read_published, refusal

_ADVICE = "name a teacher trained on this training split, or start one from these weights with init.teacher"


def check(config: ml_collections.ConfigDict) -> None:
    """Raises InputError when a run needs a teacher that it may neither train nor is given."""
    if needs_teacher(config) and not config.teacher.train and not config.teacher.checkpoint:
        raise InputError(
            "teacher.checkpoint is empty and teacher.train is False: name the released teacher (its .pth file, or a"
            " workdir) in teacher.checkpoint, or set teacher.train=True to train one first."
        )


def read_given(config: ml_collections.ConfigDict, spec: PhaseSpec, split: ReIDSplit, mesh: Mesh) -> tuple[Any, Steps]:
    """Reads the teacher that `teacher.checkpoint` names.

    Args:
        config: the whole configuration.
        spec: the teacher's phase.
        split: the training split, whose identities the teacher has to know.
        mesh: devices to put it on.

    Returns:
        Its variables and their step or steps, 0 for a weights file.

    Raises:
        MissingInputError: the file or workdir does not exist.
        InputError: it is not a teacher of this model and these identities.
    """
    if config.init.teacher:
        logging.warning("init.teacher is not used: teacher.checkpoint gives a trained teacher")
    path = find_weights(config.teacher.checkpoint)
    steps: Steps = 0
    identities = len(train_classes(split))
    module = spec.network(config, identities, len(clothes_classes(split))).module
    if path.is_file():
        try:
            if config.teacher.method:
                variables, class_order = _read_method_file(path, config, spec, module)
            else:
                variables, class_order = _read_file(path, config, identities)
        except InputError as error:
            raise refusal("teacher.checkpoint", path, error) from error
    else:
        folder = teacher_checkpoints(path)
        conversion = read_json(folder.parent.parent / CONVERSION_FILE)
        if conversion is None:  # trained here
            return read_variables(folder, module, mesh, config.eval.report, image_sizes(config))
        whole = sharding.without_model_axis(mesh)
        variables, steps = read_variables(folder, module, whole, config.eval.report, image_sizes(config))
        variables, class_order = jax.device_get(variables), conversion.get("class_order", "text")
    for note in reorder_classes(variables["params"]["face_stream"], class_order, split):
        logging.info("teacher %s: %s", path, note)
    return sharding.put_variables(mesh, variables), steps


def _read_file(path: Path, config: ml_collections.ConfigDict, identities: int) -> tuple[dict[str, Any], str]:
    """Returns the teacher in a weights file, and how its classifiers count identities."""
    published = read_published(path)
    recognised = published.recognised
    if recognised.family == "osnet":
        raise InputError(f"it holds an OSNet, which knows nobody of this dataset: {_ADVICE}.")
    stream = next((s for s in recognised.streams if s.role in ("teacher", "")), None)
    if stream is None:
        raise InputError(f"it holds {' and '.join(s.role for s in recognised.streams)}, no teacher: {_ADVICE}.")
    _check_fits(stream, config.model, identities)
    loaded = load(recognised, os_streams=config.model.streams)
    for note in loaded.notes:
        logging.info("teacher %s: %s", path.name, note)
    variables = loaded.variables[stream.role]
    return {collection: {"face_stream": tree} for collection, tree in variables.items()}, published.class_order


def _read_method_file(
    path: Path, config: ml_collections.ConfigDict, spec: PhaseSpec, module: nn.Module
) -> tuple[dict[str, Any], str]:
    """Returns the teacher of another method in a weights file, and how its classifiers count identities."""
    initial = init_variables(module, 0, image_sizes(config))
    own = {collection: tree["face_stream"] for collection, tree in initial.items() if "face_stream" in tree}
    start = start_of_method(path, spec, "face", own, config)
    if start is None or start.class_order is None:
        raise InputError(f"it holds no {config.teacher.method} that knows the training split's identities: {_ADVICE}.")
    return {collection: {"face_stream": tree} for collection, tree in start.variables.items()}, start.class_order


def _check_fits(stream: Stream, model: ml_collections.ConfigDict, identities: int) -> None:
    if stream.identities != identities:
        raise InputError(
            f"its classifiers know {stream.identities or 'no'} identities, the training split has {identities}:"
            f" {_ADVICE}."
        )
    for field, own, expected in (
        ("model.backbone", stream.backbone, model.backbone),
        ("model.feature_dim", stream.feature_dim, model.feature_dim),
    ):
        if own != expected:
            raise InputError(f"it has {field} {own}, the configuration {expected}: set the field, or {_ADVICE}.")
    if stream.attention != "none":
        raise InputError(f"it is a body network (it has a CSA module), no teacher: {_ADVICE}.")
