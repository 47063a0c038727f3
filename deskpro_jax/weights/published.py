"""Weights of the networks that a method describes by its `PublishedNames`: recognised in a file, read and written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import CLASSIFIER, PublishedNames
from deskpro_jax.weights import table
from deskpro_jax.weights.families import WRAPPERS
from deskpro_jax.weights.load import compile_patterns
from deskpro_jax.weights.looks_like import looks_like
from deskpro_jax.weights.table import COUNTER, Entry, Misfit, flatten

# Leaves of flax layers as PyTorch calls them; any other leaf keeps its name.
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_KEPT = "kept: "  # in front of the path of a parameter that a file has no tensor for


class MethodFile(NamedTuple):
    """The network of a method in a file.

    Attributes:
        method: its name.
        names: how the file names its tensors.
        tensors: by name, without wrappers.
    """

    method: str
    names: PublishedNames
    tensors: dict[str, np.ndarray]

    @property
    def fields(self) -> dict[str, Any]:
        """What the network is, as fields of the configuration."""
        return dict(self.names.fields({name: tensor.shape for name, tensor in self.tensors.items()}))


class Filled(NamedTuple):
    """A network's variables with the tensors of a file in their place.

    Attributes:
        variables: by collection, float32.
        notes: what was dropped, or kept its initial value.
        left_out: tensors that no parameter holds: counters, and what `PublishedNames.ignored` matches.
        classifiers: whether the classifiers are those of the file.
    """

    variables: dict[str, Any]
    notes: list[str]
    left_out: dict[str, np.ndarray]
    classifiers: bool


def recognise(tensors: Mapping[str, np.ndarray], candidates: Iterable[tuple[str, PublishedNames]]) -> MethodFile | None:
    """Returns which method's network the tensors of a file are.

    Args:
        tensors: by name, as read; names may carry wrappers (`module.`).
        candidates: methods with names that the file may have.

    Returns:
        The network whose signature is there and says most; None where there is none.
    """
    best: MethodFile | None = None
    for method, names in candidates:
        if best is not None and len(names.signature) <= len(best.names.signature):
            continue
        first = names.signature[0]
        for start in (name.removesuffix(first) for name in tensors if name.endswith(first)):
            if WRAPPERS.fullmatch(start) and all(start + name in tensors for name in names.signature):
                best = MethodFile(method, names, {n.removeprefix(start): value for n, value in tensors.items()})
                break
    return best


def entries(names: PublishedNames, variables: Mapping[str, Any]) -> tuple[list[Entry], list[Entry]]:
    """Returns the name table of a network.

    Args:
        names: how the file names its tensors.
        variables: of the network, arrays or shapes, by collection ("params", "batch_stats").

    Returns:
        The entries of the tensors in the file; and those of parameters that the file has nothing for, under their own
        dotted paths.

    Raises:
        InputError: a parameter holds another number of tensors than the file has names for.
    """
    there: list[Entry] = []
    absent: list[Entry] = []
    for collection, tree in variables.items():
        for path, leaf in flatten(tree):
            for index, own in _tensor_paths(names, path, leaf.shape):
                name = own
                for pattern, replacement in names.rename:
                    name = re.sub(pattern, replacement, name)
                kind = _kind(names, name or own, path[-1], len(leaf.shape) - len(index))
                (there if name else absent).append(Entry(name or own, collection, path, index, kind))
    return there, absent


def _tensor_paths(
    names: PublishedNames, path: tuple[str, ...], shape: tuple[int, ...]
) -> list[tuple[tuple[int, ...], str]]:
    """Returns index and dotted path of each tensor that a parameter holds."""
    own = ".".join((*path[:-1], _LEAVES.get(path[-1], path[-1])))
    for pattern, parts in names.stacks:
        if re.search(pattern, own):
            if shape[0] != len(parts):
                raise InputError(
                    f"{own} holds {shape[0]} tensors, files of {names.family} have {len(parts)} ({', '.join(parts)}):"
                    " the network is another (model.streams)."
                )
            return [((i,), re.sub(pattern, part, own)) for i, part in enumerate(parts)]
    return [((), own)]


def _kind(names: PublishedNames, name: str, leaf: str, axes: int) -> str | tuple[int, ...]:
    """Returns the order of a tensor's axes, as `Entry.kind`."""
    for pattern, order in names.axes:
        if re.fullmatch(pattern, name):
            return order
    if leaf != "kernel":
        return "same"
    if axes == 2:
        return "linear" if re.fullmatch(names.linear, name) else "pointwise"
    return "depthwise" if axes == 3 else "conv"


def identities_of(file: MethodFile, variables: Mapping[str, Any]) -> int | None:
    """Returns how many identities the classifiers of a file tell apart, None where it has none.

    Args:
        file: the network.
        variables: of the same network for any number of identities, arrays or shapes.
    """
    for entry in entries(file.names, variables)[0]:
        if _is_classifier(entry) and entry.name in file.tensors:
            return int(table.to_flax(file.tensors[entry.name], entry.kind).shape[-1])
    return None


def _is_classifier(entry: Entry) -> bool:
    return any(part.startswith(CLASSIFIER) for part in entry.path)


def fill(
    file: MethodFile, variables: Mapping[str, Any], *, dont_load: Iterable[str] = (), fresh_classifiers: bool = False
) -> Filled:
    """Puts the tensors of a file into a network's variables.

    Args:
        file: the network in the file.
        variables: initial ones, which stay where the file has nothing, and in the classifiers where the file has
            another number of identities.
        dont_load: regular expressions for whole names of tensors to leave out.
        fresh_classifiers: whether the classifiers keep their initial values in any case.

    Raises:
        InputError: a tensor is missing, unknown, or of another shape or type; lists all of them.
    """
    names, tensors = file.names, file.tensors
    table_, absent = entries(names, variables)
    known = {entry.name for entry in table_}
    notes: list[str] = []
    patterns = compile_patterns(dont_load)
    keep = {entry.name for entry in table_ if any(pattern.fullmatch(entry.name) for pattern in patterns)}
    if keep:
        notes.append(f"{len(keep)} tensors left out as dont_load says")
    heads = [entry for entry in table_ if _is_classifier(entry)]
    there = [entry for entry in heads if entry.name in tensors]
    own, flat = identities_of(file, variables), {(c, *p): x for c, tree in variables.items() for p, x in flatten(tree)}
    new = {int(flat[(entry.collection, *entry.path)].shape[-1]) for entry in heads}
    if heads and (fresh_classifiers or not there or new != {own}):
        keep |= {entry.name for entry in heads}
        notes.append(
            f"classifiers of {own} identities dropped, new ones of {max(new)} drawn"
            if there
            else f"the file has no classifiers: new ones of {max(new)} identities drawn"
        )
    if absent:
        modules = sorted({entry.path[0] for entry in absent})
        notes.append(f"the file has nothing for {', '.join(modules)}: initial values stay")
    left_out, problems = _left_over(names, tensors, known, patterns)
    if names.start and left_out:
        notes.append(f"{len(left_out)} tensors of the file have no part in this network")
    used: dict[str, np.ndarray] = {}
    for name in known & set(tensors):
        floating = jnp.issubdtype(tensors[name].dtype, np.floating)
        used[name] = table.as_float32(tensors[name]) if floating else tensors[name]
        if not floating:
            problems.append(table.other_type(name, tensors[name]))
    kept = [replace(entry, name=_KEPT + entry.name) for entry in absent]
    keep |= {entry.name for entry in kept}
    filled = table.load([*table_, *kept], used, variables, keep=keep, problems=problems, network=looks_like(tensors))
    return Filled(filled, notes, left_out, bool(heads) and not keep & {entry.name for entry in heads})


def _left_over(
    names: PublishedNames, tensors: Mapping[str, np.ndarray], known: set[str], patterns: Sequence[re.Pattern[str]]
) -> tuple[dict[str, np.ndarray], list[Misfit]]:
    """Returns the tensors of a file that no parameter holds, and what is wrong with the others."""
    left_out: dict[str, np.ndarray] = {}
    problems = []
    for name in set(tensors) - known:
        if name.endswith(f".{COUNTER}") or names.ignores(name):
            left_out[name] = tensors[name]
        elif not any(pattern.fullmatch(name) for pattern in patterns):
            problems.append(table.left_over(name, tensors[name]))
    return left_out, sorted(problems)


def to_tensors(
    names: PublishedNames, variables: Mapping[str, Any], step: int, left_out: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns a network as the state dict of the published code.

    Args:
        names: how the file names its tensors.
        variables: `params` and `batch_stats` of the network.
        step: training steps, which PyTorch's BatchNorms count.
        left_out: what no parameter holds, for weights that came from a file and were not trained since.

    Returns:
        Contiguous arrays by name.
    """
    tensors = table.dump(entries(names, variables)[0], variables)
    counters = [name.replace("running_mean", COUNTER) for name in tensors if name.endswith("running_mean")]
    tensors |= {name: np.asarray(step, np.int64) for name in counters} | dict(left_out)
    return {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in tensors.items()}
