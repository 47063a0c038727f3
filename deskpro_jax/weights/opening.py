"""Opens a weights file as networks whose roles are known: body, face student, face teacher, or an OSNet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from deskpro_jax.errors import InputError
from deskpro_jax.models.osnet import OS_STREAMS
from deskpro_jax.weights.export import file_class_order
from deskpro_jax.weights.families import Recognised, Stream, recognise
from deskpro_jax.weights.load import Loaded, load
from deskpro_jax.weights.read import WeightFile, read_file

# Role of a network -> the phase that trains it, and its stream.
PLACES = {
    "teacher": ("teacher", "face"),
    "student": ("student", "face"),
    "body": ("student", "body"),
    "osnet": ("osnet", "body"),
}


class OpenedWeights(NamedTuple):
    """What a weights file holds.

    Attributes:
        family: of published networks, one of `families.FAMILIES`.
        loaded: its networks by role.
        format: as `WeightFile.format`.
        metadata: its text metadata.
        preprocessing: how images go in, where the file says so.
    """

    family: str
    loaded: Loaded
    format: str
    metadata: dict[str, str]
    preprocessing: dict[str, Any] | None

    @property
    def class_order(self) -> str:
        """How its classifiers count identities, one of `data.load.classes.ORDERS`."""
        return file_class_order(self.metadata)

    @property
    def states(self) -> dict[str, dict[str, Any]]:
        """The variables by phase and collection, each network under the name of its stream."""
        states: dict[str, dict[str, Any]] = {}
        for role, variables in self.loaded.variables.items():
            phase, stream = PLACES[role]
            state = states.setdefault(phase, {"params": {}, "batch_stats": {}})
            for collection, tree in variables.items():
                state[collection][f"{stream}_stream"] = tree
        return states

    @property
    def model(self) -> dict[str, Any]:
        """The networks as fields of `config.model`."""
        streams = {stream.role: stream for stream in self.loaded.streams}
        first = self.loaded.streams[0]
        model = {
            "name": "osnet" if self.family == "osnet" else "deskpro",
            "backbone": first.backbone,
            "streams": self.loaded.os_streams,
            "attention": streams["body"].attention if "body" in streams else "none",
            "feature_dim": first.feature_dim,
        }
        faces = [role for role in ("student", "teacher") if role in streams]
        return model | {"body": bool({"body", "osnet"} & set(streams)), "face": faces[0] if faces else "none"}


def open_weights(
    source: Path,
    *,
    family: str | None = None,
    role: str | None = None,
    os_streams: str | None = None,
    identities: int | None = None,
    dont_load: Iterable[str] = (),
) -> OpenedWeights:
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
        MissingInputError: the file does not exist.
    """
    file, recognised = recognise_file(source)
    try:
        if family is not None and recognised.family != family:
            raise InputError(f"the file holds {recognised.family}, not {family}: correct --family or the file.")
        loaded = load(recognised, os_streams=os_streams, identities=identities, dont_load=dont_load)
        loaded = _with_roles(loaded, role, recognised.family)
        preprocessing = _preprocessing(file.metadata)
        return OpenedWeights(recognised.family, loaded, file.format, file.metadata, preprocessing)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def recognise_file(path: Path) -> tuple[WeightFile, Recognised]:
    """Reads a weights file and recognises its networks, by its tensors and by its metadata.

    Args:
        path: a PyTorch or safetensors file.

    Raises:
        MissingInputError: the file does not exist.
        InputError: it is unusable, or of no known family; the message names it.
    """
    file = read_file(path)
    try:
        recognised = recognise(file.tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    known = file.metadata.get("os_streams")
    if recognised.os_streams is None and known in OS_STREAMS:
        recognised = replace(recognised, os_streams=known)
    return file, recognised


def stream_of_role(role: str, model: Mapping[str, Any], identities: int | None, prefix: str = "") -> Stream:
    """Returns the description of a network in a file.

    Args:
        role: one of `PLACES`.
        model: fields of `config.model`.
        identities: size of its classifiers; None where there are none.
        prefix: of its names.
    """
    attention = model["attention"] if role == "body" else "none"
    return Stream(role, prefix, model["backbone"], attention, model["feature_dim"], identities)


def _preprocessing(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        known = json.loads(metadata.get("preprocessing", "null"))
        return None if known is None else dict(known)
    except (ValueError, TypeError) as error:
        raise InputError(f"its metadata 'preprocessing' is not a JSON object ({error}): export it again.") from error


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
