"""Pretrained initialisation: the weights that `config.init` names, and random initial values for what they lack."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
from absl import logging

from deskpro_jax.data.load import classes as class_orders
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.models.contract import PhaseSpec, image_sizes
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.storage import files
from deskpro_jax.weights.load import initialise
from deskpro_jax.weights.opening import PLACES
from deskpro_jax.workdir.record import START
from deskpro_jax.workdir.source import PublishedTensors, read_published, refusal


def begin(
    spec: PhaseSpec, module: nn.Module, config: ml_collections.ConfigDict, folder: Path, split: ReIDSplit
) -> Callable[[Any], Any] | None:
    """Prepares the pretrained initialisation of a phase; weights that do not fit are refused before any training.

    Args:
        spec: the phase.
        module: its module.
        config: the whole configuration; `init` is read.
        folder: `<workdir>/<phase>`; with a checkpoint in it the phase goes on, and the weights are not looked at.
        split: the training split, whose identities are the classes.

    Returns:
        A function from random initial variables to those with the pretrained weights in their place, which also logs
        what it dropped and writes `start.json`; None when `config.init` names nothing for this phase.

    Raises:
        MissingInputError: a file that `config.init` names does not exist.
        InputError: it does not fit; the message names field and file.
    """
    paths = {stream: config.init[field] for stream, field in spec.init.items() if config.init[field]}
    if not paths:
        return None
    replace = functools.partial(_replace, spec, module, config, paths, split)
    if not any((folder / "checkpoints").glob("[0-9]*")):
        replace(init_variables(module, 0, image_sizes(config)))

    def start(initial: Any) -> Any:
        variables, record = replace(initial)
        for stream, entry in record.items():
            for note in (f"starts from {entry['source']} ({entry['format']}, {entry['family']})", *entry["notes"]):
                logging.info("%s: %s", stream, note)
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            files.write_json(folder / START, record)
        return variables

    return start


def warn_of_unused(config: ml_collections.ConfigDict, specs: Sequence[PhaseSpec]) -> None:
    """Logs the fields of `config.init` that no phase of the run reads."""
    used = {field for spec in specs for field in spec.init.values()}
    for field in ("body", "face", "teacher"):
        if config.init[field] and field not in used:
            logging.warning("init.%s is not used: this run trains no such network", field)


def _replace(
    spec: PhaseSpec,
    module: nn.Module,
    config: ml_collections.ConfigDict,
    paths: Mapping[str, str],
    split: ReIDSplit,
    initial: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the variables with pretrained weights in their place, and what is recorded of them, by role."""
    variables = {collection: dict(tree) for collection, tree in initial.items()}
    roles = {place: role for role, place in PLACES.items()}
    record: dict[str, Any] = {}
    for stream, text in paths.items():
        field, path = f"init.{spec.init[stream]}", Path(text).expanduser()
        role, key = roles[spec.name, stream], f"{stream}_stream"
        try:
            published = read_published(path)
            filled, notes = initialise(
                published.recognised,
                role,
                {collection: tree[key] for collection, tree in initial.items()},
                os_streams=config.model.streams,
                attention=config.model.attention if role == "body" else "none",
                dont_load=config.init.dont_load,
            )
        except MissingInputError as error:
            raise MissingInputError(f"{field}: {error}") from error
        except InputError as error:
            raise refusal(field, path, error) from error
        for collection, tree in filled.items():
            variables[collection][key] = tree
        classes = filled["params"]["classifier"]["kernel"].shape[-1]
        if _keeps_classifier(published, role, classes):
            notes += reorder_classes(filled["params"], published.class_order, split)
        record[role] = {
            "source": published.name,
            "sha256": published.sha256,
            "format": published.format,
            "family": published.recognised.family,
            "notes": [*notes, *_idle_patterns(published, config.init.dont_load)],
        }
    return variables, record


def _keeps_classifier(published: PublishedTensors, role: str, classes: int) -> bool:
    return any(s.role in (role, "") and s.identities == classes for s in published.recognised.streams)


def reorder_classes(params: dict[str, Any], class_order: str, split: ReIDSplit) -> list[str]:
    """Puts the outputs of a stream's classifiers, in place, into the order of this package's classes.

    Args:
        params: of one stream, on the host.
        class_order: how they count identities now, one of `classes.ORDERS`.
        split: the training split, of as many identities.

    Returns:
        What was done, to be logged.
    """
    positions = class_orders.text_positions(split) if class_order == "text" else None
    if positions is None or np.array_equal(positions, np.arange(len(positions))):
        return []
    kernel = params["classifier"]["kernel"]
    params["classifier"] = {"kernel": np.ascontiguousarray(kernel[..., positions])}
    return ["the classifiers count identities by the text of their names: put into the order of their numbers"]


def _idle_patterns(published: PublishedTensors, patterns: tuple[str, ...]) -> list[str]:
    names = published.recognised.tensors
    idle = [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in names)]
    return [f"init.dont_load: {pattern!r} matches no name in {published.name}" for pattern in idle]
