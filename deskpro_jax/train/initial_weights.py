"""What a phase begins with where `config.init` names published weights: those, and drawn values for the rest."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from deskpro_jax.data.load import classes
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.methods.deskpro import DeSKPro, init_variables
from deskpro_jax.storage import files
from deskpro_jax.weights.load import initialise
from deskpro_jax.workdir.source import Source, open_source, refusal
from deskpro_jax.workdir.stored import PLACES, START

FIELDS = {"body": "body", "student": "face", "teacher": "teacher"}  # role -> field of `config.init`


def begin(
    phase: str, module: DeSKPro, config: ml_collections.ConfigDict, folder: Path, split: ReIDSplit
) -> Callable[[Any], Any] | None:
    """Prepares the start of a phase, so that weights that do not fit are refused before anything is trained.

    Args:
        phase: "teacher" or "student".
        module: its model.
        config: the whole configuration; `init` is read.
        folder: `<workdir>/<phase>`; with a checkpoint in it the phase goes on, and the weights are not looked at.
        split: the training split, whose identities are the classes.

    Returns:
        A function from the drawn variables to those the phase begins with, which also logs what it dropped and writes
        `start.json`; None when `config.init` names nothing for this phase.

    Raises:
        MissingInputError: a file that `config.init` names is not there.
        InputError: it does not fit; the message names field and file.
    """
    wanted = {role: Path(path).expanduser() for role, path in _wanted(phase, module, config).items()}
    if not wanted:
        return None
    replace = functools.partial(_replace, module, config, wanted, split)
    if not any((folder / "checkpoints").glob("[0-9]*")):
        replace(init_variables(module, 0))

    def start(drawn: Any) -> Any:
        variables, record = replace(drawn)
        for role, entry in record.items():
            for note in (f"starts from {entry['source']} ({entry['format']}, {entry['family']})", *entry["notes"]):
                logging.info("%s: %s", role, note)
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            files.write_json(folder / START, record)
        return variables

    return start


def _wanted(phase: str, module: DeSKPro, config: ml_collections.ConfigDict) -> dict[str, str]:
    """Returns the weights that `config.init` names for the networks of a phase, by role."""
    if phase == "teacher":
        return {"teacher": config.init.teacher} if config.init.teacher else {}
    present = {"body": module.body, "student": module.face}
    named = {"body": config.init.body, "student": config.init.face}
    for role, path in named.items():
        if path and not present[role]:
            logging.warning("init.%s is not used: this run trains no %s network", FIELDS[role], role)
    return {role: path for role, path in named.items() if path and present[role]}


def _replace(
    module: DeSKPro,
    config: ml_collections.ConfigDict,
    wanted: Mapping[str, Path],
    split: ReIDSplit,
    drawn: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the variables with published weights in their place, and what is said about them, by role."""
    variables = {collection: dict(tree) for collection, tree in drawn.items()}
    record: dict[str, Any] = {}
    for role, path in wanted.items():
        field, stream = f"init.{FIELDS[role]}", PLACES[role][1]
        try:
            source = open_source(path)
            filled, notes = initialise(
                source.found,
                role,
                {collection: tree[stream] for collection, tree in drawn.items()},
                os_streams=module.streams,
                attention=module.attention if role == "body" else "none",
                dont_load=config.init.dont_load,
            )
        except MissingInputError as error:
            raise MissingInputError(f"{field}: {error}") from error
        except InputError as error:
            raise refusal(field, path, error) from error
        for collection, tree in filled.items():
            variables[collection][stream] = tree
        if _keeps_classifier(source, role, module):
            notes += reorder_classes(filled["params"], source.class_order, split)
        record[role] = {
            "source": source.name,
            "sha256": source.sha256,
            "format": source.format,
            "family": source.found.family,
            "notes": [*notes, *_idle_patterns(source, config.init.dont_load)],
        }
    return variables, record


def _keeps_classifier(source: Source, role: str, module: DeSKPro) -> bool:
    return any(s.role in (role, "") and s.identities == module.num_classes for s in source.found.streams)


def reorder_classes(params: dict[str, Any], class_order: str, split: ReIDSplit) -> list[str]:
    """Puts the outputs of a stream's classifiers, in place, into the order of this package's classes.

    Args:
        params: of one stream, on the host.
        class_order: how they count identities now, one of `classes.ORDERS`.
        split: the training split, of as many identities.

    Returns:
        What was done, to be logged.
    """
    positions = classes.text_positions(split) if class_order == "text" else None
    if positions is None or np.array_equal(positions, np.arange(len(positions))):
        return []
    kernel = params["classifier"]["kernel"]
    params["classifier"] = {"kernel": np.ascontiguousarray(kernel[..., positions])}
    return ["the classifiers count identities by the text of their names: put into the order of their numbers"]


def _idle_patterns(source: Source, patterns: tuple[str, ...]) -> list[str]:
    names = source.found.tensors
    idle = [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in names)]
    return [f"init.dont_load: {pattern!r} matches no name in {source.name}" for pattern in idle]
