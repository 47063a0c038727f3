"""Pretrained initialisation: the weights that `config.init` names, and random initial values for what they lack."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import numpy as np
from absl import logging

from deskpro_jax import methods
from deskpro_jax.data.load import classes as class_orders
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.models.contract import CLASSIFIER, PhaseSpec, image_sizes
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.storage import files
from deskpro_jax.storage.checksums import file_sha256
from deskpro_jax.weights.export import file_class_order
from deskpro_jax.weights.load import initialise, stream_for
from deskpro_jax.weights.opening import PLACES, family_in_words
from deskpro_jax.weights.pretrained import find_weights, name_of
from deskpro_jax.weights.published import fill
from deskpro_jax.weights.published import recognise as recognise_method
from deskpro_jax.weights.read import read_file
from deskpro_jax.workdir.networks import load_networks
from deskpro_jax.workdir.record import START
from deskpro_jax.workdir.source import read_published, refusal

_ROLES = {place: role for role, place in PLACES.items()}


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
    record: dict[str, Any] = {}
    for stream, text in paths.items():
        field, path = f"init.{spec.init[stream]}", find_weights(text)
        role, key = _ROLES.get((spec.name, stream), stream), f"{stream}_stream"
        own = {collection: tree[key] for collection, tree in initial.items() if key in tree}
        try:
            start = start_of_method(path, spec, stream, own, config) or _start_of_stream(path, role, own, config)
        except MissingInputError as error:
            raise MissingInputError(f"{field}: {error}") from error
        except InputError as error:
            raise refusal(field, path, error) from error
        for collection, tree in start.variables.items():
            variables[collection][key] = tree
        notes = list(start.notes)
        if start.class_order is not None:
            notes += reorder_classes(start.variables["params"], start.class_order, split)
        record[role] = {**start.source, "notes": notes}
    return variables, record


class Start(NamedTuple):
    """What a stream starts from.

    Attributes:
        variables: of the stream, by collection.
        notes: what was dropped or kept.
        class_order: how the classifiers count identities; None where they are drawn anew.
        source: name, checksum, format and family, as recorded.
    """

    variables: dict[str, Any]
    notes: list[str]
    class_order: str | None
    source: dict[str, str]


def start_of_method(
    path: Path, spec: PhaseSpec, stream: str, initial: Mapping[str, Any], config: ml_collections.ConfigDict
) -> Start | None:
    """Returns the start from what the names of a method describe, or from the same network in a workdir.

    Args:
        path: a file or workdir.
        spec: the phase.
        stream: of the phase.
        initial: its variables, by collection.
        config: the whole configuration.

    Returns:
        The start; None where `weights.families` knows the networks of the method.

    Raises:
        MissingInputError: there is no such file or workdir.
        InputError: it holds another network.
    """
    method = spec.methods.get(stream, config.model.name)
    names = methods.names_of(method)
    if not path.exists():
        raise MissingInputError(f"no file or workdir at {path}: correct the path of the weights.")
    if path.is_dir():
        known = methods.families_of(method) and ":" not in config.model.backbone
        return None if known else _start_of_workdir(path, (spec.name, stream), initial)
    if not names and methods.families_of(method):
        return None
    file = read_file(path)
    own = recognise_method(file.tensors, [(method, one) for one in names])
    if own is None:
        if methods.families_of(method):
            return None
        expected = " or ".join(dict.fromkeys(one.family for one in names)) or "a workdir of the same network"
        raise InputError(f"the file holds {family_in_words(file.tensors)}; {method} starts from {expected}.")
    filled = fill(own, initial, dont_load=config.init.dont_load)
    notes = filled.notes + _idle_patterns(own.tensors, config.init.dont_load, name_of(path))
    class_order = file_class_order(file.metadata) if filled.classifiers else None
    source = {"source": name_of(path), "sha256": file_sha256(path), "format": file.format, "family": own.names.family}
    return Start(filled.variables, notes, class_order, source)


def _start_of_workdir(path: Path, phase_and_stream: tuple[str, str], initial: Mapping[str, Any]) -> Start:
    """Returns the start from a stream of a workdir that has the same parameters, classifiers apart."""
    loaded = load_networks(path, report="last", every_phase=True)
    streams = [(phase, stream.name) for phase in loaded.phases for stream in phase.network.streams]
    # The one of the same phase and name before others of the same shapes.
    for phase, stream in sorted(streams, key=lambda one: (one[0].name, one[1]) != phase_and_stream):
        held = phase.stream_variables(stream)
        bodies = [{name: _without_classifiers(tree) for name, tree in one.items()} for one in (held, initial)]
        if _shapes(bodies[0]) != _shapes(bodies[1]):
            continue
        source = {"source": path.name, "sha256": "", "format": "workdir", "family": str(loaded.config.model.name)}
        if _shapes(held) == _shapes(initial):
            return Start(dict(held), [], loaded.record.class_order, source)
        variables = {**held, "params": _with_classifiers(held["params"], initial["params"])}
        return Start(variables, ["classifiers of other identities dropped, new ones drawn"], None, source)
    raise InputError(f"no network in it has the parameters of this one ({phase_and_stream[1]} stream).")


def _without_classifiers(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_classifiers(value) if isinstance(value, Mapping) else value
        for name, value in tree.items()
        if not name.startswith(CLASSIFIER)
    }


def _with_classifiers(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a tree of parameters with the classifiers of another one of the same structure."""
    joined = {name: value for name, value in tree.items() if not name.startswith(CLASSIFIER)}
    for name, value in other.items():
        if name.startswith(CLASSIFIER):
            joined[name] = value
        elif isinstance(value, Mapping):
            joined[name] = _with_classifiers(tree[name], value)
    return joined


def _shapes(tree: Any) -> Any:
    return jax.tree.map(np.shape, tree)


def _start_of_stream(path: Path, role: str, initial: Mapping[str, Any], config: ml_collections.ConfigDict) -> Start:
    """Returns the start of a LightMBN stream from a file or workdir of OSNet, LightMBN or DeSKPro."""
    found = read_published(path)
    filled, notes = initialise(
        found.recognised,
        role,
        initial,
        os_streams=config.model.streams,
        attention=config.model.attention if role == "body" else "none",
        dont_load=config.init.dont_load,
    )
    classes = filled["params"]["classifier"]["kernel"].shape[-1]
    stream = stream_for(found.recognised, role)
    kept = stream.role != "osnet" and stream.identities == classes
    notes += _idle_patterns(found.recognised.tensors, config.init.dont_load, found.name)
    source = {"source": found.name, "sha256": found.sha256, "format": found.format}
    return Start(filled, notes, found.class_order if kept else None, {**source, "family": found.recognised.family})


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
    for name, tree in _reordered(params, positions).items():
        params[name] = tree
    return ["the classifiers count identities by the text of their names: put into the order of their numbers"]


def _reordered(tree: Mapping[str, Any], positions: np.ndarray) -> dict[str, Any]:
    """Returns a tree of parameters with the last axis of every classifier's in another order."""
    reordered = {}
    for name, value in tree.items():
        if name.startswith(CLASSIFIER):
            value = jax.tree.map(lambda leaf: np.ascontiguousarray(np.asarray(leaf)[..., positions]), value)
        elif isinstance(value, Mapping):
            value = _reordered(value, positions)
        reordered[name] = value
    return reordered


def _idle_patterns(names: Collection[str], patterns: tuple[str, ...], source: str) -> list[str]:
    idle = [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in names)]
    return [f"init.dont_load: {pattern!r} matches no name in {source}" for pattern in idle]
