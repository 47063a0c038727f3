"""Published weights into flax variables, every tensor accounted for."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import CLASSIFIER
from deskpro_jax.models.lmbn import BRANCHES, LightMBN
from deskpro_jax.models.osnet import BACKBONES, Backbone, OSNet
from deskpro_jax.weights import deskpro, lmbn, osnet, table
from deskpro_jax.weights.families import Recognised, Stream, canonical, settle_os_streams
from deskpro_jax.weights.looks_like import looks_like
from deskpro_jax.weights.table import COUNTER, Entry, Misfit

_KEPT = "kept: "  # in front of the name of an entry that a file has no tensor for


class Loaded(NamedTuple):
    """The networks of a file.

    Attributes:
        variables: `params` and `batch_stats` of each network, by role.
        os_streams: the OSBlock streams they run.
        streams: what each of them is.
        notes: what was dropped or drawn anew.
        left_out: tensors that no variable holds (counters, a stream that does not run, OSNet's classifier), by name.
    """

    variables: dict[str, dict[str, Any]]
    os_streams: str
    streams: tuple[Stream, ...]
    notes: list[str]
    left_out: dict[str, np.ndarray]


def stream_entries(family: str, stream: Stream, os_streams: str) -> list[Entry]:
    """Returns the name table of one network of a file, paths from the network's own root."""
    spec = BACKBONES[stream.backbone]
    if family == "osnet":
        return without_classifiers(osnet.osnet(streams=os_streams, spec=spec))
    naming = lmbn.PUBLISHED if family == "lmbn" else lmbn.DESKPRO
    entries = [*lmbn.light_mbn(naming, streams=os_streams, spec=spec), *deskpro.attention(stream.attention)]
    entries = entries if stream.identities is not None else without_classifiers(entries)
    return [entry.under(stream.prefix, ()) for entry in entries]


def initial_variables(stream: Stream, os_streams: str, seed: int) -> dict[str, Any]:
    """Returns freshly drawn variables of the network that a file's stream is; an OSNet's without classifier.

    Nor have those of other networks classifiers where the file has none (`Stream.identities` is None).
    """
    own_seed = seed + zlib.crc32(stream.role.encode())  # networks of one file do not start alike
    module: LightMBN | OSNet
    if stream.role == "osnet":
        module = OSNet(stream.backbone, 1, stream.feature_dim, os_streams)
    else:
        classes = stream.identities or 1
        module = LightMBN(classes, stream.backbone, os_streams, stream.attention, stream.feature_dim)
    variables = initialisers.fill(*_init_and_shapes(module, jnp.zeros(()).dtype), own_seed)
    if stream.role == "osnet" or stream.identities is None:
        variables["params"] = {name: value for name, value in variables["params"].items() if name != CLASSIFIER}
    return variables


@functools.lru_cache(maxsize=32)  # tracing takes as long as all else that reads a file
def _init_and_shapes(module: LightMBN | OSNet, float_type: Any) -> tuple[Callable[[Array], Any], Any]:
    image = jnp.zeros((1, 32, 32, 3), float_type)
    init = lambda key: module.init(key, image, train=False)  # noqa: E731
    return init, initialisers.shapes_of(init)


def load(
    recognised: Recognised,
    *,
    os_streams: str | None = None,
    identities: int | None = None,
    dont_load: Iterable[str] = (),
    seed: int = 0,
) -> Loaded:
    """Loads every network of a file.

    Args:
        recognised: the file's contents.
        os_streams: "abcd" or "aacd"; None for those that the file was trained with.
        identities: size of the classifiers; other than in the file, they are drawn anew. None for the file's.
        dont_load: regular expressions for whole names (without wrappers); what they match is neither read nor missed.
        seed: of what is drawn anew.

    Returns:
        The networks' variables in float32.

    Raises:
        InputError: a tensor has no canonical_name, another shape or type, or is missing; or the streams are others.
    """
    os_streams = settle_os_streams(recognised, os_streams)
    notes: list[str] = []
    networks, keep = [], []
    for stream in recognised.streams:
        known = stream.identities
        if identities is not None and recognised.family != "osnet":
            stream = replace(stream, identities=identities)
        entries = stream_entries(recognised.family, stream, os_streams)
        if stream.identities != known:
            classifiers = [entry.name for entry in entries if entry.path[0] == CLASSIFIER]
            dropped = f"classifiers of {known} identities dropped" if known else "the file has no classifiers"
            notes.append(f"{_where(stream)}{dropped}, {len(classifiers)} of {identities} drawn anew")
            keep += classifiers
        networks.append((stream, entries))
    # One tree with a branch for each network, so that one message lists everything that does not fit.
    combined: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
    every: list[Entry] = []
    for stream, entries in networks:
        for collection, tree in initial_variables(stream, os_streams, seed).items():
            combined[collection][stream.role] = tree
        every += [entry.under("", (stream.role,)) for entry in entries]
    unused = {e.name for stream in recognised.streams for e in stream_entries(recognised.family, stream, "abcd")}
    left_out: dict[str, np.ndarray] = {}
    tensors, keep, problems = _account(recognised, every, unused, keep, dont_load, notes, left_out)
    network = looks_like(recognised.tensors)
    filled = table.load(every, tensors, combined, keep=keep, problems=problems, network=network)
    variables = {
        stream.role: {collection: filled[collection][stream.role] for collection in filled} for stream, _ in networks
    }
    return Loaded(variables, os_streams, tuple(stream for stream, _ in networks), notes, left_out)


def initialise(
    recognised: Recognised,
    role: str,
    variables: Mapping[str, Any],
    *,
    os_streams: str,
    attention: str,
    dont_load: Iterable[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """Starts one stream from published weights: OSNet's into the trunk and all three branches, others as they are.

    Args:
        recognised: the file's contents.
        role: which of a DeSKPro file's networks: "body", "student" or "teacher", which a file without one gives the
            student for.
        variables: the stream's initial values, kept where the file has nothing: what OSNet lacks of LightMBN,
            classifiers that are absent or of another number of identities, an attention module that the file lacks.
        os_streams: OSBlock streams of the stream. A network pretrained with "abcd" may start one of "aacd".
        attention: form of the stream's CSA module.
        dont_load: as in `load`.

    Returns:
        The stream's variables, and what was dropped or kept.

    Raises:
        InputError: the file does not fit.
    """
    stream = stream_for(recognised, role)
    if recognised.family == "deskpro":
        settle_os_streams(recognised, os_streams)
    spec = BACKBONES[stream.backbone]
    model = [*lmbn.light_mbn(lmbn.DESKPRO, streams=os_streams, spec=spec), *deskpro.attention(attention)]
    if recognised.family == "osnet":
        entries = _osnet_entries(os_streams, spec)
    else:
        entries = stream_entries(recognised.family, stream, os_streams)
        if stream.attention != attention:
            entries = [entry for entry in entries if entry.path[0] != "attention"]
    notes = []
    if role == "teacher" and stream.role == "student":
        notes.append("the file has no teacher: its face student is read")
    classes = int(variables["params"]["classifier"]["kernel"].shape[-1])
    keep = []
    if recognised.family != "osnet" and stream.identities not in (None, classes):
        keep = [entry.name for entry in entries if entry.path[0] == CLASSIFIER]
        notes.append(f"classifiers of {stream.identities} identities dropped, {len(keep)} of {classes} drawn anew")
    covered = {(entry.collection, entry.path, entry.index) for entry in entries}
    rest = [
        replace(entry, name=_KEPT + entry.name)
        for entry in model
        if (entry.collection, entry.path, entry.index) not in covered
    ]
    if rest:
        places = sorted({entry.path[0] for entry in rest})
        notes.append(f"the file has nothing for {', '.join(places)}: initial values stay")
    names = {s.role: {e.name for e in stream_entries(recognised.family, s, "abcd")} for s in recognised.streams}
    unused = set().union(*names.values())
    # That a file has networks of other roles too needs no note.
    others = unused - names[stream.role]
    left_out = {canonical(name): value for name, value in recognised.tensors.items() if canonical(name) in others}
    tensors, keep, problems = _account(recognised, entries, unused, keep, dont_load, notes, left_out)
    keep += [entry.name for entry in rest]
    network = looks_like(recognised.tensors)
    filled = table.load([*entries, *rest], tensors, variables, keep=keep, problems=problems, network=network)
    return filled, notes


def stream_for(recognised: Recognised, role: str) -> Stream:
    """Returns the network of a file that a stream starts from.

    Args:
        recognised: the file's contents.
        role: "body", "student" or "teacher"; for a teacher the student does, the same network for other faces.

    Raises:
        InputError: the file holds only networks of other roles.
    """
    for roles in ((role, "", "osnet"), ("student",) if role == "teacher" else ()):
        for stream in recognised.streams:
            if stream.role in roles:
                return stream
    others = ", ".join(stream.role for stream in recognised.streams)
    raise InputError(f"the file holds no {role} network, only {others}: name another file or another stream.")


def without_classifiers(entries: Iterable[Entry]) -> list[Entry]:
    """Returns the entries of a name table that belong to no classifier."""
    return [entry for entry in entries if not any(part.startswith(CLASSIFIER) for part in entry.path)]


def as_osnet(stream: Stream, os_streams: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the trunk and the global branch of a LightMBN stream as an OSNet's, for other trainings to start from.

    Args:
        stream: what the network is.
        os_streams: OSBlock streams that it runs.
        variables: of the network.

    Returns:
        Tensors by name, without the OSNet's last layers, `fc` and `classifier`, which the stream has nothing for.
    """
    entries = _osnet_entries(os_streams, BACKBONES[stream.backbone])
    first = [entry for entry in entries if entry.path[0] == "trunk" or entry.index[0] == 0]
    return {name: np.ascontiguousarray(value) for name, value in table.dump(first, variables).items()}


def _osnet_entries(os_streams: str, spec: Backbone) -> list[Entry]:
    """Returns the table from an OSNet into a LightMBN stream: each tensor of its tail goes to three branches."""
    entries = []
    for entry in osnet.osnet(streams=os_streams, spec=spec):
        if entry.path[0] == "trunk":
            entries.append(entry)
        elif entry.path[0] == "tail":
            path = ("branches", *entry.path[1:])
            entries += [replace(entry, path=path, index=(i, *entry.index)) for i in range(len(BRANCHES))]
    return entries


def _where(stream: Stream) -> str:
    return f"{stream.role}: " if stream.role not in ("", "osnet") else ""


def _account(
    recognised: Recognised,
    entries: Sequence[Entry],
    unused: Collection[str],
    keep: Sequence[str],
    dont_load: Iterable[str],
    notes: list[str],
    left_out: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], list[str], list[Misfit]]:
    """Sorts a file's tensors: those to load in float32, names of entries to keep, and what is wrong with the others."""
    patterns = compile_patterns(dont_load)
    names = {entry.name for entry in entries}
    needed, excused = names - set(keep), {name for name in names if _matches(patterns, name)}
    counted = {*unused, *names}
    tensors: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    problems: list[Misfit] = []
    idle = dropped = matched = 0
    for name, value in recognised.tensors.items():
        canonical_name = canonical(name) if recognised.family == "deskpro" else name
        if _matches(patterns, name) or _matches(patterns, canonical_name):
            matched += 1
        elif canonical_name in origin and not _same(value, recognised.tensors[origin[canonical_name]]):
            text = f"{name}: differs from {origin[canonical_name]}, which is the same tensor"
            problems.append(Misfit(table.CONTRADICTION, text))
        elif canonical_name in origin or canonical_name in keep:
            continue
        elif canonical_name in needed:
            if jnp.issubdtype(value.dtype, np.floating):
                tensors[canonical_name], origin[canonical_name] = table.as_float32(value), name
            else:
                problems.append(table.other_type(name, value))
                tensors[canonical_name], origin[canonical_name] = value, name
        elif canonical_name.endswith(f".{COUNTER}") and _is_counter(canonical_name, counted):
            left_out[canonical_name] = value
        elif canonical_name in unused:
            idle += canonical_name not in left_out
            left_out[canonical_name] = value
        elif recognised.family == "osnet" and canonical_name.startswith("classifier."):
            dropped += 1
            left_out[canonical_name] = value
        else:
            problems.append(table.left_over(name, value))
    if matched:
        notes.append(f"{matched} tensors left out as dont_load says")
    if idle:
        notes.append(f"{idle} tensors of the file have no part in this model and are left out")
    if dropped:
        notes.append("the classifier is dropped")
    return tensors, [*keep, *excused], problems


def _is_counter(name: str, counted: Collection[str]) -> bool:
    """Whether a tensor counts the batches of a BatchNorm of the model."""
    return name.endswith(f".{COUNTER}") and f"{name.removesuffix(COUNTER)}running_mean" in counted


def compile_patterns(patterns: Iterable[str]) -> list[re.Pattern[str]]:
    """Returns the regular expressions of `dont_load`; InputError where one is none."""
    try:
        return [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise InputError(f"dont_load: {error.pattern!r} is not a regular expression ({error}).") from error


def _matches(patterns: Iterable[re.Pattern[str]], name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
