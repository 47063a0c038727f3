"""Recognises from tensor names which published network a file holds: OSNet, LightMBN or DeSKPro."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deskpro_jax.errors import InputError
from deskpro_jax.models.osnet import BACKBONES
from deskpro_jax.weights.deskpro import STREAMS as PREFIXES
from deskpro_jax.weights.looks_like import looks_like
from deskpro_jax.weights.table import COUNTER

FAMILIES = ("osnet", "lmbn", "deskpro")
ROLES = tuple(PREFIXES)  # body, student, teacher
# Modules that hold the network itself: torch.nn.DataParallel, Lightning modules, torch.compile.
WRAPPERS = re.compile(r"((module|model|net|network|_orig_mod)\.)*")
# Each branch is registered twice in DeSKPro's released code.
ALIASES = {"branches.0.": "global_branch.", "branches.1.": "part_branch.", "branches.2.": "channel_branch."}


@dataclass(frozen=True)
class Stream:
    """One network in a file.

    Attributes:
        role: "body", "student" or "teacher"; "" where the file does not say; "osnet" for an OSNet.
        prefix: what its names start with, after the file's own wrappers.
        backbone: a key of `deskpro_jax.models.osnet.BACKBONES`.
        attention: form of its CSA module.
        feature_dim: size of its embeddings.
        identities: size of its classifiers; None where there are none.
    """

    role: str
    prefix: str
    backbone: str
    attention: str
    feature_dim: int
    identities: int | None


@dataclass(frozen=True)
class Recognised:
    """What a file holds: its family, its networks, and the OSBlock streams they were trained with if that shows."""

    family: str
    streams: tuple[Stream, ...]
    os_streams: str | None
    tensors: Mapping[str, np.ndarray]


def canonical(name: str) -> str:
    """Returns the first of the two names that DeSKPro's released code gives a branch's tensor."""
    for alias, target in ALIASES.items():
        name = re.sub(rf"(^|\.){re.escape(alias)}", rf"\g<1>{target}", name, count=1)
    return name


def recognise(tensors: Mapping[str, np.ndarray]) -> Recognised:
    """Recognises the networks that the tensors of a file are.

    Args:
        tensors: by name, as read; names may carry wrappers (`module.`, `model.`).

    Returns:
        The description; its `tensors` have the names without wrappers.

    Raises:
        InputError: they belong to no known family, or to several.
    """
    for family, signature, other in (
        ("lmbn", "backone.0.conv.weight", "global_branch.2.conv.weight"),
        ("deskpro", "backbone.0.conv.weight", "backbone.3.conv1.conv.weight"),
        ("osnet", "conv1.conv.weight", "conv5.conv.weight"),
    ):
        starts = [n.removesuffix(signature) for n in tensors if n.endswith(signature)]
        starts = [start for start in starts if start + other in tensors and _is_start(start, family)]
        if not starts:
            continue
        roles = [_split(start, family) for start in starts]
        wrappers = {wrapper for wrapper, _ in roles}
        if (
            len(wrappers) > 1
            or len({role for _, role in roles}) < len(roles)
            or (len(roles) > 1 and any(not role for _, role in roles))
        ):
            raise InputError(
                f"several networks of one kind are in the file, under {', '.join(map(repr, starts))}: expected one."
            )
        wrapper = wrappers.pop()
        plain = {name.removeprefix(wrapper): value for name, value in tensors.items()}
        if len(plain) < len(tensors):
            raise InputError(f"some names are there with and without {wrapper!r}: expected one network.")
        streams = tuple(_stream(plain, family, role) for _, role in roles)
        return Recognised(family, streams, _os_streams(plain), plain)
    some = ", ".join(list(tensors)[:3])
    network = looks_like(tensors)
    looks = f" (the file looks like {network})" if network else ""
    raise InputError(
        f"the {len(tensors)} tensors ({some[:200]}, ...) belong to no known family{looks}: OSNet has"
        " conv1.conv.weight and conv5.conv.weight, LightMBN backone.0.conv.weight, DeSKPro face_net., lr_face_net."
        " or nocloth_net.backbone.0.conv.weight."
    )


def _is_start(start: str, family: str) -> bool:
    return WRAPPERS.fullmatch(_split(start, family)[0]) is not None


def _split(start: str, family: str) -> tuple[str, str]:
    """Returns the wrappers and the role in what a name starts with."""
    if family == "osnet":
        return start, "osnet"
    if family == "deskpro":
        for role, prefix in PREFIXES.items():
            if start == prefix or start.endswith("." + prefix):
                return start.removesuffix(prefix), role
    return start, ""


def _size(tensors: Mapping[str, np.ndarray], name: str) -> int | None:
    """Returns the output size of a layer, None where it is absent."""
    if name not in tensors:
        return None
    if tensors[name].ndim < 1 or not tensors[name].size:
        raise InputError(f"{name} has shape {tensors[name].shape}; expected a layer's weight.")
    return int(tensors[name].shape[0])


def _stream(tensors: Mapping[str, np.ndarray], family: str, role: str) -> Stream:
    prefix = PREFIXES.get(role, "")
    bases = {"osnet": "conv", "lmbn": "backone.", "deskpro": "backbone."}
    neck = "reduction_0." if family == "lmbn" else "global_branch.reduction_1."
    first = 1 if family == "osnet" else 0  # OSNet counts its layers from conv1, LightMBN from 0
    stem, second = f"{prefix}{bases[family]}{first}", f"{prefix}{bases[family]}2"
    width = _size(tensors, f"{stem}.conv.weight")
    norm = "batch"
    if f"{second}.0.IN.weight" in tensors:  # OSNet-AIN's takes the place of a BatchNorm
        norm = "ibn" if f"{second}.0.conv3.bn.weight" in tensors else "ain"
    names = [n for n, b in BACKBONES.items() if b.channels[0] == width and b.norm == norm]
    if not names:
        known = ", ".join(f"{n} ({b.channels[0]})" for n, b in BACKBONES.items() if b.norm == "batch")
        raise InputError(f"{stem}.conv.weight has {width} channels; expected those of an OSNet: {known}.")
    if family == "osnet":
        feature_dim, identities = _size(tensors, "fc.0.weight"), _size(tensors, "classifier.weight")
    else:
        held = {canonical(name): value for name, value in tensors.items() if name.startswith(prefix)}
        feature_dim = _size(held, f"{prefix}{neck}reduction.weight")
        identities = _size(held, f"{prefix}{neck}classifier.weight")
    attention = "none"
    for form, layer in (("released", "conv1"), ("paper", "conv")):
        if f"{prefix}spatial_attn.{layer}.weight" in tensors:
            attention = form
    return Stream(role, prefix, names[0], attention, feature_dim or 512, identities)


def _os_streams(tensors: Mapping[str, np.ndarray]) -> str | None:
    """Tells from how often each OSBlock's streams ran which of them the network runs.

    Every forward pass in training counts one up in each BatchNorm that runs. In "abcd" the counters of streams a and b
    move together; in "aacd" b's stands still, at 0 or where pretraining left it.
    """
    votes: dict[str, str] = {}
    suffix = f"conv2a.bn.{COUNTER}"
    for name in tensors:
        if name.endswith(suffix):
            other = f"{name.removesuffix(suffix)}conv2b.0.bn.{COUNTER}"
            a, b = (int(np.max(tensors[n], initial=0)) if n in tensors else 0 for n in (name, other))
            if a > b and other in tensors:
                votes["aacd"] = name.removesuffix("." + suffix)
            elif a == b > 0:
                votes["abcd"] = name.removesuffix("." + suffix)
    if len(votes) > 1:
        raise InputError(
            f"the file mixes networks: stream b of {votes['aacd']} never ran in training (aacd), that of"
            f" {votes['abcd']} did (abcd): expected one kind."
        )
    return next(iter(votes), None)


def settle_os_streams(recognised: Recognised, os_streams: str | None) -> str:
    """Returns the OSBlock streams to load a file with.

    Args:
        recognised: the file.
        os_streams: those of the model, None to take the file's.

    Raises:
        InputError: the file was trained with others, or does not show with which and none are given.
    """
    if recognised.os_streams is None and os_streams is None and recognised.family == "deskpro":
        raise InputError(
            "the file does not show which OSBlock streams it was trained with (all num_batches_tracked are 0 or"
            " absent): give --streams aacd for weights of DeSKPro's released code, abcd for OSNet as published."
        )
    own = recognised.os_streams or ("abcd" if recognised.family != "deskpro" else os_streams)
    if os_streams is not None and os_streams != own:
        why = "stream b of its blocks never ran in training" if own == "aacd" else "all four streams of its blocks ran"
        raise InputError(
            f"these weights are of {own} ({why}), the model runs {os_streams}: set streams (model.streams in a"
            f" configuration) to {own}."
        )
    return str(own)
