"""Opens a weights file as networks whose roles are known: body, face student, face teacher, or an OSNet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deskpro_jax import methods
from deskpro_jax.configs import base
from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import Counts, image_sizes
from deskpro_jax.models.osnet import OS_STREAMS
from deskpro_jax.weights.export import file_class_order
from deskpro_jax.weights.families import Recognised, Stream, recognise
from deskpro_jax.weights.load import Loaded, load
from deskpro_jax.weights.published import MethodFile, fill, identities_of
from deskpro_jax.weights.published import recognise as recognise_method
from deskpro_jax.weights.read import WeightFile, read_file

# Role of a network -> the phase that trains it, and its stream.
PLACES = {
    "teacher": ("teacher", "face"),
    "student": ("student", "face"),
    "body": ("student", "body"),
    "osnet": ("osnet", "body"),
}
_BODY = "body_stream"
CHOICES = "model"  # metadata of a file: fields of `config.model` that no tensor shows


class OpenedWeights(NamedTuple):
    """What a weights file holds.

    Attributes:
        family: of published networks, one of `families.FAMILIES` or of a method's `PublishedNames`.
        states: variables by phase and collection, each network under the name of its stream.
        fields: what the networks are, as fields of the configuration by dotted name.
        networks: description of each network by role.
        os_streams: OSBlock streams that run; "" where there are no OSBlocks.
        notes: what was dropped or drawn anew.
        left_out: tensors that no variable holds, by name.
        format: as `WeightFile.format`.
        metadata: its text metadata.
        preprocessing: how images go in, where the file says so.
    """

    family: str
    states: dict[str, dict[str, Any]]
    fields: dict[str, Any]
    networks: dict[str, dict[str, Any]]
    os_streams: str
    notes: list[str]
    left_out: dict[str, np.ndarray]
    format: str
    metadata: dict[str, str]
    preprocessing: dict[str, Any] | None

    @property
    def model(self) -> dict[str, Any]:
        """What the networks are, as fields of `config.model`."""
        return {n.removeprefix("model."): value for n, value in self.fields.items() if n.startswith("model.")}

    @property
    def class_order(self) -> str:
        """How its classifiers count identities, one of `data.load.classes.ORDERS`."""
        return file_class_order(self.metadata)


def _states(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """Returns the variables by phase and collection, each network under the name of its stream."""
    states: dict[str, dict[str, Any]] = {}
    for role, variables in loaded.variables.items():
        phase, stream = PLACES[role]
        state = states.setdefault(phase, {"params": {}, "batch_stats": {}})
        for collection, tree in variables.items():
            state[collection][f"{stream}_stream"] = tree
    return states


def _fields(family: str, loaded: Loaded) -> dict[str, Any]:
    """Returns the networks as fields of `config.model`."""
    streams = {stream.role: stream for stream in loaded.streams}
    first = loaded.streams[0]
    faces = [role for role in ("student", "teacher") if role in streams]
    return {
        "model.name": "osnet" if family == "osnet" else "deskpro",
        "model.backbone": first.backbone,
        "model.streams": loaded.os_streams,
        "model.attention": streams["body"].attention if "body" in streams else "none",
        "model.feature_dim": first.feature_dim,
        "model.body": bool({"body", "osnet"} & set(streams)),
        "model.face": faces[0] if faces else "none",
    }


def open_weights(
    source: Path,
    *,
    family: str | None = None,
    role: str | None = None,
    os_streams: str | None = None,
    identities: int | None = None,
    dont_load: Iterable[str] = (),
    weights: str | None = None,
) -> OpenedWeights:
    """Reads the networks of a weights file.

    Args:
        source: a PyTorch or safetensors file of a known family.
        family: what the file must be; None takes what its names say.
        role: what a network is whose names do not say so: "body" (also the default for LightMBN), "student", "teacher".
        os_streams: OSBlock streams; None for those the file was trained with.
        identities: of new classifiers; None keeps the file's.
        dont_load: regular expressions for names of tensors to leave out.
        weights: which weights are read of a file that has plain and EMA ones, as `read_file` takes it.

    Returns:
        The networks.

    Raises:
        InputError: the file is unusable, of another family, or does not fit; names the file.
        MissingInputError: the file does not exist.
    """
    file = read_file(source, weights)
    try:
        if (own := recognise_method(file.tensors, methods.published_names())) is not None:
            _check_family(own.names.family, family)
            return _open_method(file, own, role, identities, dont_load)
        recognised = _recognised(file)
        _check_family(recognised.family, family)
        loaded = load(recognised, os_streams=os_streams, identities=identities, dont_load=dont_load)
        loaded = _with_roles(loaded, role, recognised.family)
        return OpenedWeights(
            recognised.family,
            _states(loaded),
            _fields(recognised.family, loaded),
            {stream.role: asdict(stream) for stream in loaded.streams},
            loaded.os_streams,
            loaded.notes,
            loaded.left_out,
            file.format,
            file.metadata,
            _preprocessing(file.metadata),
        )
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _check_family(held: str, family: str | None) -> None:
    if family is not None and held != family:
        raise InputError(f"the file holds {held}, not {family}: correct --family or the file.")


def _open_method(
    file: WeightFile, own: MethodFile, role: str | None, identities: int | None, dont_load: Iterable[str]
) -> OpenedWeights:
    """Opens the network of a method of this package that its `PublishedNames` describe."""
    if own.names.start:
        raise InputError(
            f"the file holds {own.names.family}, which only starts a training (--config.init.body={{file}});"
            " expected a network that was trained to recognise people."
        )
    if role not in (None, "body"):
        raise InputError(f"the file holds {own.names.family}, a network of photos, no {role}: leave out --as.")
    method = methods.find_method(own.method)
    fields = {**methods.variants()[own.names.variant or own.method], **own.fields, **_choices(file.metadata)}
    config = base.get_config()
    config.update_from_flattened_dict(fields)
    sizes = image_sizes(config)
    one = initialisers.variable_shapes(method.build(config, Counts(1)), sizes)
    held = identities_of(own, _of_stream(one))
    network = method.build(config, Counts(identities or held or 1))
    template = _of_stream(initialisers.init_variables(network, 0, sizes))
    filled = fill(own, template, dont_load=dont_load)
    state = {collection: {_BODY: tree} for collection, tree in filled.variables.items()}
    return OpenedWeights(
        own.names.family,
        {own.method: state},
        fields,
        {"body": {"role": "body", "prefix": "", "method": own.method, "identities": held}},
        "",
        filled.notes,
        filled.left_out,
        file.format,
        file.metadata,
        _preprocessing(file.metadata),
    )


def _choices(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of `config.model` that a file's metadata has, without those that this version lacks."""
    defaults = base.get_config().model
    try:
        known = dict(json.loads(metadata.get(CHOICES, "{}")))
    except (ValueError, TypeError) as error:
        raise InputError(f"its metadata {CHOICES!r} is not a JSON object ({error}): export it again.") from error
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    for name in fields.keys() & defaults.keys():
        if type(fields[name]) is not type(defaults[name]):
            raise InputError(
                f"its metadata {CHOICES!r} has {name}: {known[name]!r}; expected one like {defaults[name]!r}: export"
                " it again."
            )
    return {f"model.{name}": value for name, value in fields.items() if name in defaults}


def _of_stream(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {collection: tree[_BODY] for collection, tree in variables.items() if _BODY in tree}


def family_in_words(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns which networks a file holds, by its tensors, for an error."""
    own = recognise_method(tensors, methods.published_names())
    if own is not None:
        return f"{own.names.family} ({own.method})" if own.names.family != own.method else own.method
    try:
        return recognise(tensors).family
    except InputError as error:
        return f"something else ({error})"


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
        return file, _recognised(file)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _recognised(file: WeightFile) -> Recognised:
    recognised = recognise(file.tensors)
    known = file.metadata.get("os_streams")
    if recognised.os_streams is None and known in OS_STREAMS:
        recognised = replace(recognised, os_streams=known)
    return recognised


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
