"""Writes the networks of a workdir as safetensors in the reference's PyTorch names, with a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

import deskpro_jax
from deskpro_jax.checkpoints.selection import Steps
from deskpro_jax.errors import InputError
from deskpro_jax.methods import find_method
from deskpro_jax.storage.files import check_new
from deskpro_jax.weights.card import Card, model_card
from deskpro_jax.weights.deskpro import STREAMS as PREFIXES
from deskpro_jax.weights.export import to_tensors, versions, write
from deskpro_jax.weights.families import Stream
from deskpro_jax.weights.opening import PLACES, stream_of_role
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
    return {role: (by_place[place], place[1]) for role, place in PLACES.items() if place in by_place}


def families_of(loaded: LoadedNetworks) -> tuple[str, ...]:
    """Returns the families of published names that networks can have, their own first.

    Raises:
        InputError: the method, or its backbone, has no published names.
    """
    model = loaded.config.model
    families: tuple[str, ...] = getattr(find_method(model.name), "NAMES", ())
    if not families:
        raise InputError(f"the method {model.name!r} has no published names: use the workdir, or export StableHLO.")
    if ":" in model.backbone:
        raise InputError(
            f"the backbone {model.backbone!r} has no published names: use the workdir, or export StableHLO."
        )
    return families


def describe(loaded: LoadedNetworks, role: str, phase: LoadedPhase, family: str) -> Stream:
    """Returns the description of a network under the names of a family."""
    classifier = phase.stream_variables(PLACES[role][1])["params"].get("classifier")
    identities = None if classifier is None or role == "osnet" else int(classifier["kernel"].shape[-1])
    prefix = PREFIXES[role] if family == "deskpro" else ""
    return stream_of_role(role, loaded.config.model, identities, prefix)


def export_weights(folder: Path, target: Path, *, family: str | None = None, report: str = "last") -> dict[str, Steps]:
    """Writes the networks of a workdir as one safetensors file in the reference's names, and a model card beside it.

    Args:
        folder: a workdir of a training or of converted weights.
        target: a new file ending in .safetensors; the card has the same name ending in .md.
        family: whose names, "deskpro" or "lmbn" (a lone body network); None for the family it came from, or the
            method's own.
        report: which checkpoint, as `eval.report`.

    Returns:
        The step or steps of each phase.

    Raises:
        InputError: `target` already exists, or the networks have no names in that family.
        MissingInputError: `folder` holds no checkpoints.
    """
    check_new(target, target.with_suffix(".md"))
    loaded = load_networks(folder, report=report, every_phase=True)
    roles = networks_by_role(loaded)
    record, own = loaded.record, families_of(loaded)
    family = family or record.family or own[0]
    if family not in own or (family == "lmbn" and len(roles) > 1):
        raise InputError(f"{folder} holds {', '.join(roles)}, which have no names in the family {family}.")
    untouched = family == record.family and not any(phase.step(stream) for phase, stream in roles.values())
    left_out = read_file(folder / LEFT_OUT).tensors if untouched and (folder / LEFT_OUT).exists() else {}
    os_streams = loaded.config.model.streams
    tensors: dict[str, np.ndarray] = {}
    streams: dict[str, Stream] = {}
    for role, (phase, stream) in roles.items():
        streams[role] = describe(loaded, role, phase, family)
        variables = phase.stream_variables(stream)
        tensors |= to_tensors(family, streams[role], os_streams, variables, phase.step(stream), left_out)
    metadata = {
        "format": "pt",
        "family": family,
        "os_streams": os_streams,
        "class_order": record.class_order,
        "written_by": f"deskpro_jax {deskpro_jax.__version__}",
    }
    if record.sizes_known:
        metadata[PREPROCESSING] = json.dumps(_preprocessing(loaded.config))
    card = Card(
        streams,
        os_streams,
        {role: phase.step(stream) for role, (phase, stream) in roles.items()},
        json.loads(loaded.config.to_json_best_effort()) if record.trained else None,
        record.conversion,
        record.results,
        record.starts,
        versions(),
    )
    write(target, tensors, metadata, model_card(target, card))
    return loaded.steps


def _preprocessing(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the settings that a file keeps: sizes of images, mirrored images, rule for missing faces."""
    sizes = {name: list(config.data[name]) for name in ("body_size", "face_size")}
    return sizes | {name: config.eval[name] for name in ("flip", "missing_face")}
