"""Writes the networks of a workdir as safetensors in the reference's PyTorch names, with a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

import deskpro_jax
from deskpro_jax import methods
from deskpro_jax.checkpoints.selection import Steps
from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import CLASSIFIER, PublishedNames
from deskpro_jax.storage.files import check_new
from deskpro_jax.weights import published
from deskpro_jax.weights.card import Card, CardNetwork
from deskpro_jax.weights.deskpro import STREAMS as PREFIXES
from deskpro_jax.weights.export import compacted, to_float16, to_tensors, versions, write
from deskpro_jax.weights.families import Stream
from deskpro_jax.weights.load import as_osnet, stream_entries
from deskpro_jax.weights.opening import CHOICES, PLACES, stream_of_role
from deskpro_jax.weights.read import read_file
from deskpro_jax.workdir.networks import LoadedNetworks, LoadedPhase, load_networks
from deskpro_jax.workdir.record import LEFT_OUT, PREPROCESSING


def networks_by_role(loaded: LoadedNetworks) -> dict[str, tuple[LoadedPhase, str]]:
    """Returns the phase and stream of each network by its role in published files ("body", "student", ...).

    Raises:
        InputError: the method, or its backbone, has no published names.
    """
    families_of(loaded)
    by_place = {(phase.name, spec.name): phase for phase in loaded.phases for spec in phase.network.streams}
    roles = {role: (by_place[place], place[1]) for role, place in PLACES.items() if place in by_place}
    lone = ("lmbn", "body")  # by itself, the network that DeSKPro has as its body stream
    return roles | {"body": (by_place[lone], "body")} if lone in by_place else roles


def families_of(loaded: LoadedNetworks) -> tuple[str, ...]:
    """Returns the families of published names that networks can have, their own first.

    Raises:
        InputError: the method, or its backbone, has no published names.
    """
    model = loaded.config.model
    teacher = any(phase.name == "teacher" for phase in loaded.phases) and loaded.config.teacher.method
    other = methods.other_methods(loaded.config) or ((teacher,) if teacher else ())
    if other:
        raise InputError(
            f"a network of {other[0]} beside DeSKPro's has no published names: use the workdir, or export StableHLO."
        )
    families = methods.families_of(model.name)
    if not families:
        raise InputError(f"the method {model.name!r} has no published names: use the workdir, or export StableHLO.")
    if ":" in model.backbone:
        raise InputError(
            f"the backbone {model.backbone!r} has no published names: use the workdir, or export StableHLO."
        )
    return families


def describe(loaded: LoadedNetworks, role: str, phase: LoadedPhase, family: str) -> Stream:
    """Returns the description of a network under the names of a family."""
    stream = PLACES[role][1]
    classifier = phase.stream_variables(stream)["params"].get(CLASSIFIER)
    none = classifier is None or role == "osnet" or stream in phase.no_classifiers
    identities = None if none else int(classifier["kernel"].shape[-1])
    prefix = PREFIXES[role] if family == "deskpro" else ""
    return stream_of_role(role, loaded.config.model, identities, prefix)


def export_weights(
    folder: Path,
    target: Path,
    *,
    family: str | None = None,
    report: str = "last",
    compact: bool = False,
    only: tuple[str, bool] | None = None,
) -> dict[str, Steps]:
    """Writes the networks of a workdir as one safetensors file in the reference's names, and a model card beside it.

    Args:
        folder: a workdir of a training or of converted weights.
        target: a new file ending in .safetensors; the card has the same name ending in .md.
        family: whose names, "deskpro" or "lmbn" (a lone body network); "osnet" for trunk and global branch of one
            network, as a start of others; None for the family it came from, or the method's own.
        report: which checkpoint, as `eval.report`.
        compact: writes only what the embedding depends on, kernels in float16, and no teacher of a student.
        only: the networks to write, as `face` and `body` of `load_networks`; None for all of them.

    Returns:
        The step or steps of each phase.

    Raises:
        InputError: `target` already exists, or the networks have no names in that family.
        MissingInputError: `folder` holds no checkpoints.
    """
    check_new(target, target.with_suffix(".md"))
    face, body = only or (None, True)
    loaded = load_networks(folder, face=face, body=body, report=report, every_phase=not compact and only is None)
    record = loaded.record
    own = any(not names.start for names in methods.names_of(loaded.config.model.name))
    written = (_of_method if own else _of_families)(folder, loaded, family, compact)
    metadata = {
        "format": "pt",
        "family": written.family,
        "os_streams": written.os_streams,
        "class_order": record.class_order,
        "written_by": f"deskpro_jax {deskpro_jax.__version__}",
    }
    if own:
        metadata[CHOICES] = json.dumps(_choices(loaded.config))
    if record.sizes_known:
        metadata[PREPROCESSING] = json.dumps(_preprocessing(loaded.config))
    card = Card(
        written.networks,
        written.os_streams,
        json.loads(loaded.config.to_json_best_effort()) if record.trained else None,
        record.conversion,
        record.results,
        record.starts,
        versions(),
        compact,
    )
    write(target, written.tensors, {name: text for name, text in metadata.items() if text}, card)
    return loaded.steps


class _Written(NamedTuple):
    """What goes into a file: family, tensors by name, and what the card says of each network."""

    family: str
    tensors: dict[str, np.ndarray]
    networks: dict[str, CardNetwork]
    os_streams: str = ""


def _of_families(folder: Path, loaded: LoadedNetworks, family: str | None, compact: bool) -> _Written:
    """Returns networks under the names of OSNet, LightMBN or DeSKPro."""
    roles = networks_by_role(loaded)
    own, os_streams = families_of(loaded), loaded.config.model.streams
    family = family or loaded.record.family or own[0]
    if family == "osnet" and "lmbn" in own:
        return _start_of_others(folder, loaded, roles, compact)
    if family not in own or (family == "lmbn" and len(roles) > 1):
        raise InputError(f"{folder} holds {', '.join(roles)}, which have no names in the family {family}.")
    left_out = _left_out(folder, loaded, family, [phase.step(stream) for phase, stream in roles.values()])
    tensors: dict[str, np.ndarray] = {}
    networks = {}
    for role, (phase, stream) in roles.items():
        described, step = describe(loaded, role, phase, family), phase.step(stream)
        own_tensors = to_tensors(family, described, os_streams, phase.stream_variables(stream), step, left_out)
        if compact:
            own_tensors = compacted(own_tensors, stream_entries(family, described, os_streams))
        tensors |= own_tensors
        networks[role] = CardNetwork(
            described.prefix,
            f"OSNet {described.backbone}",
            described.attention,
            described.feature_dim,
            None if compact else described.identities,
            step,
        )
    return _Written(family, tensors, networks, os_streams)


def _start_of_others(
    folder: Path, loaded: LoadedNetworks, roles: Mapping[str, tuple[LoadedPhase, str]], compact: bool
) -> _Written:
    """Returns the part of one network that is an OSNet's, under an OSNet's names."""
    os_streams = loaded.config.model.streams
    if len(roles) > 1 or os_streams != "abcd":
        raise InputError(
            f"{folder} holds {', '.join(roles)}, streams {os_streams}; as an OSNet goes one network of abcd: add"
            " --network body or face."
        )
    ((role, (phase, stream)),) = roles.items()
    described, step = describe(loaded, role, phase, "osnet"), phase.step(stream)
    tensors = as_osnet(described, os_streams, phase.stream_variables(stream))
    tensors = {name: to_float16(value) for name, value in tensors.items()} if compact else tensors
    kind = f"OSNet {described.backbone}, without its last layers"
    return _Written("osnet", tensors, {role: CardNetwork("", kind, "none", 0, None, step)}, os_streams)


def _of_method(folder: Path, loaded: LoadedNetworks, family: str | None, compact: bool) -> _Written:
    """Returns the network of a method under the names of its published files."""
    config = loaded.config
    by_family = {names.family: names for names in methods.names_of(config.model.name) if not names.start}
    (phase,) = loaded.phases
    (stream,) = phase.network.streams
    variables, step = phase.stream_variables(stream.name), phase.step(stream.name)
    family = family or loaded.record.family or _family_of(by_family, variables)
    if family not in by_family:
        raise InputError(f"{folder} holds {config.model.name}, whose names are those of {', '.join(by_family)}.")
    left_out = _left_out(folder, loaded, family, [step])
    tensors = published.to_tensors(by_family[family], variables, step, left_out)
    if compact:
        tensors = compacted(tensors, published.entries(by_family[family], variables)[0])
    module = getattr(phase.network.module, f"{stream.name}_stream", None)
    identities = None if compact else getattr(module, "num_classes", None)
    network = CardNetwork("", config.model.name, config.model.attention, stream.dim, identities, step)
    return _Written(family, tensors, {stream.name: network})


def _family_of(by_family: Mapping[str, PublishedNames], variables: Mapping[str, Any]) -> str:
    """Returns the first family whose files have tensors of these variables, by the names that only it has."""
    for family, names in by_family.items():
        if set(names.signature) <= {entry.name for entry in published.entries(names, variables)[0]}:
            return family
    return next(iter(by_family))


def _left_out(folder: Path, loaded: LoadedNetworks, family: str, steps: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns what no variable holds of a file that was converted here and not trained since."""
    untouched = family == loaded.record.family and not any(steps)
    return read_file(folder / LEFT_OUT).tensors if untouched and (folder / LEFT_OUT).exists() else {}


def _choices(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the fields of `config.model` beside the method's name, for what no tensor shows."""
    return {name: value for name, value in config.model.items() if name not in ("name", "body", "face")}


def _preprocessing(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the settings that a file keeps: sizes and filter of images, mirrored images, rule for missing faces."""
    sizes: dict[str, Any] = {name: list(config.data[name]) for name in ("body_size", "face_size")}
    sizes["interpolation"] = config.data.interpolation
    return sizes | {name: config.eval[name] for name in ("flip", "missing_face")}
