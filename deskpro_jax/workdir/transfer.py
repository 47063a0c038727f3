"""Evaluates a workdir's networks as they are: their own configuration counts, whatever dataset they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
from absl import logging

from deskpro_jax.config import fields as fields_
from deskpro_jax.errors import InputError
from deskpro_jax.workdir import layout
from deskpro_jax.workdir.record import CONVERSION_FILE, read_record

_STREAM_FIELDS = ("model.body", "model.face")


def as_trained(config: ml_collections.ConfigDict, folder: Path) -> ml_collections.ConfigDict:
    """Returns the configuration with which the networks of a workdir can be evaluated on `config.data.name`.

    On the dataset that a workdir was begun with, the fields that decide what a network computes have to be those it
    was trained with. On another dataset, and for converted weights, they are taken over from the workdir, and streams
    that the workdir has no network for are left out.

    Args:
        config: as the command gave it.
        folder: the workdir.

    Raises:
        InputError: the network is another one, or none of the streams asked for is there.
    """
    if not (folder / layout.CONFIG_FILE).exists() and not (folder / CONVERSION_FILE).exists():
        return config
    record = read_record(folder)
    if record.trained and record.config.data.name == config.data.name:
        layout.check_network(folder, config)
        return config
    source = folder / (layout.CONFIG_FILE if record.trained else CONVERSION_FILE)
    trained = fields_.network_fields(record.config.to_dict())
    if not record.sizes_known and config.model.name == record.config.model.name:
        trained = {name: value for name, value in trained.items() if name.startswith("model.")}
    before = fields_.flatten(config)
    changes = {name: value for name, value in trained.items() if name in before and name not in _STREAM_FIELDS}
    changes |= _streams(config, trained, folder)
    teacher = record.config.teacher.checkpoint
    if changes["model.face"] == "teacher" and teacher and not config.teacher.checkpoint:
        changes["teacher.checkpoint"] = teacher
    changes = {name: value for name, value in changes.items() if before[name] != value}
    if changes:
        listed = ", ".join(f"{name}={value}" for name, value in changes.items())
        logging.info("from %s, as the networks are: %s", source, listed)
    return _with(config, changes)


def _streams(config: ml_collections.ConfigDict, trained: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the streams to use: those asked for, as far as the workdir has networks for them."""
    has_body, has_face = bool(trained.get("model.body")), trained.get("model.face", "none")
    faces = {"none", has_face} | ({"teacher"} if (folder / "teacher" / "checkpoints").is_dir() else set())
    body, face = config.model.body and has_body, config.model.face
    if face not in faces:
        face = has_face
    if not body and face == "none":
        raise InputError(
            f"the configuration asks for model.body={config.model.body} and model.face={config.model.face!r}, but "
            f"{folder} was trained with model.body={has_body} and model.face={has_face!r}: ask for one of these."
        )
    return {"model.body": body, "model.face": face}


def _with(config: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    copy = config.copy_and_resolve_references()
    fields = fields_.flatten(config)
    for name, value in changes.items():
        group, field = name.split(".")
        is_sequence = isinstance(fields[name], list)
        copy[group][field] = tuple(value) if is_sequence else value
    return copy
