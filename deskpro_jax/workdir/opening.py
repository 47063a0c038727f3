"""Opens a weights file as networks whose roles are known: body, face student, face teacher, or an OSNet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from deskpro_jax.errors import InputError
from deskpro_jax.weights.load import Loaded, load
from deskpro_jax.workdir.source import recognise_file
from deskpro_jax.workdir.stored import PREPROCESSING


class Opened(NamedTuple):
    """What a file holds: its family, its networks by role, format, text metadata, and how images go in, if known."""

    family: str
    loaded: Loaded
    format: str
    metadata: dict[str, str]
    preprocessing: dict[str, Any] | None


def open_networks(
    source: Path,
    *,
    family: str | None = None,
    role: str | None = None,
    os_streams: str | None = None,
    identities: int | None = None,
    dont_load: Iterable[str] = (),
) -> Opened:
    """Reads the networks of a weights file.

    Args:
        source: a PyTorch or safetensors file of a known family.
        family: what the file must be; None takes what its names say.
        role: what a network is whose names do not say so: "body" (also the default for LightMBN), "student", "teacher".
        os_streams: OSBlock streams; None for those the file was trained with.
        identities: of new classifiers; None keeps the file's.
        dont_load: regular expressions for names of tensors to leave out.

    Returns:
        The networks.

    Raises:
        InputError: the file is unusable, of another family, or does not fit; names the file.
        MissingInputError: there is no such file.
    """
    held, found = recognise_file(source)
    try:
        if family is not None and found.family != family:
            raise InputError(f"the file holds {found.family}, not {family}: correct --family or the file.")
        loaded = load(found, os_streams=os_streams, identities=identities, dont_load=dont_load)
        loaded = _with_roles(loaded, role, found.family)
        return Opened(found.family, loaded, held.format, held.metadata, _preprocessing(held.metadata))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _preprocessing(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        known = json.loads(metadata.get(PREPROCESSING, "null"))
        return None if known is None else dict(known)
    except (ValueError, TypeError) as error:
        raise InputError(f"its metadata {PREPROCESSING!r} is no JSON object ({error}): export it again.") from error


def _with_roles(loaded: Loaded, role: str | None, family: str) -> Loaded:
    """Gives the network of a file that does not name its role the one asked for."""
    if "" not in loaded.variables:
        if role is not None and role not in loaded.variables:
            raise InputError(f"the file holds {', '.join(loaded.variables)}, no {role}: leave out --as.")
        return loaded
    if role is None and (family == "lmbn" or loaded.streams[0].attention != "none"):
        role = "body"
    if role is None:
        raise InputError("the names do not say which network this is: give --as teacher, student or body.")
    streams = tuple(replace(stream, role=role) for stream in loaded.streams)
    return loaded._replace(variables={role: loaded.variables[""]}, streams=streams)
