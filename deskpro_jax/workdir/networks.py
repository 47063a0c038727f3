"""Opens trained networks for use: from a workdir, a converted workdir or a weights file, with how images go in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deskpro_jax.config import fields
from deskpro_jax.configs import base
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation import evaluate
from deskpro_jax.evaluation.evaluate import Network
from deskpro_jax.methods.deskpro import DTYPES, FACES, DeSKPro
from deskpro_jax.workdir import layout
from deskpro_jax.workdir.opening import open_networks
from deskpro_jax.workdir.stored import PLACES, PREPROCESSING, RECORD, describe, read_phase

Roles = dict[str, Mapping[str, Any]]  # "body", "student", "teacher" -> params and batch_stats of one stream
Size = tuple[int, int]  # height, width in pixels

FACE_FIELDS = {"student": "face", "teacher": "restored_face"}
_PHASES = ("student", "teacher")
_FIELDS = (  # of a workdir's configuration; the first five say how images go in
    *("data.body_size", "data.face_size", "eval.flip", "eval.batch", "model.dtype"),
    *("model.body", "model.face", "teacher.checkpoint", "eval.report"),
)
_RULE = "eval.missing_face"  # absent from the configurations of older workdirs


class Trained(NamedTuple):
    """Networks that together give an embedding, and how they are used.

    Attributes:
        networks: as training has them: body and student are one, the teacher is one by itself.
        variables: of each, on the host.
        face: which face network is among them: "student", "teacher" or "none".
        feature_dim: length of each part of an embedding.
        checksum: SHA-256 of all numbers that an embedding depends on; the same wherever the networks are kept.
        body_size: Of body images.
        face_size: Of faces.
        flip: whether features of the mirrored image are added.
        batch: images a batch.
        dtype: of the computation.
        missing_face: how images without a face are compared, one of `deskpro_jax.evaluation.ranking.MISSING_FACE`.
        sizes_known: whether the sizes come from the training (True) or are the paper's for want of better knowledge.
    """

    networks: tuple[Network, ...]
    variables: tuple[Mapping[str, Any], ...]
    face: str
    feature_dim: int
    checksum: str
    body_size: Size
    face_size: Size
    flip: bool
    batch: int
    dtype: str
    missing_face: str
    sizes_known: bool

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of an embedding, in order."""
        return evaluate.streams(self.networks)


def open_trained(
    source: str | Path,
    *,
    face: str | None = None,
    body: bool = True,
    dtype: str | None = None,
    report: str | None = None,
    role: str | None = None,
    os_streams: str | None = None,
) -> Trained:
    """Opens the networks of a workdir, a converted workdir or a weights file.

    Args:
        source: the folder or file.
        face: "student", "teacher" (reads restored faces) or "none"; None for what the workdir was configured with,
            and the student where there is no configuration.
        body: False leaves the body network out.
        dtype: of the computation, "float32" or "bfloat16"; None for that of the training.
        report: checkpoint, one of `selection.REPORTS`; None for what the workdir was configured with.
        role: which network a file holds, where its names do not say so.
        os_streams: OSBlock streams, where a file does not show them.

    Returns:
        The networks.

    Raises:
        InputError: the source holds no such network, or cannot be read.
        MissingInputError: there is no such file, folder or checkpoint.
    """
    source = Path(source).expanduser()
    if not source.exists():
        raise MissingInputError(
            f"no file or folder at {source}: give a workdir, a converted workdir or a weights file."
        )
    if face is not None and face not in FACES:
        raise InputError(f"face is {face!r}; expected one of {', '.join(FACES)}.")
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}.")
    if source.is_dir():
        roles, chosen, settings = _from_workdir(source, face, report, body)
    else:
        roles, chosen, settings = _from_file(source, face, role, os_streams)
    if not body:
        roles.pop("body", None)
    if not roles:
        raise InputError(f"{source} has no body network, and face={chosen!r} asks for none: choose another face.")
    return _assemble(source, roles, chosen, dtype, settings)


def _from_file(
    source: Path, face: str | None, role: str | None, os_streams: str | None
) -> tuple[Roles, str, dict[str, Any]]:
    found = open_networks(source, role=role, os_streams=os_streams)
    if found.family == "osnet":
        raise InputError(f"{source} holds a lone OSNet; embeddings need a LightMBN or DeSKPro network.")
    roles, chosen = _choose(source, found.loaded.variables, face)
    return roles, chosen, found.preprocessing or {}


def _from_workdir(folder: Path, face: str | None, report: str | None, body: bool) -> tuple[Roles, str, dict[str, Any]]:
    path = folder / layout.CONFIG_FILE
    if not path.exists():
        held: Roles = {}
        for phase in _PHASES:
            if (folder / phase / "checkpoints").is_dir():
                held |= _phase(folder / phase / "checkpoints", phase, report or "last")
        if not held and (folder / "osnet").is_dir():
            raise InputError(f"{folder} holds a lone OSNet; embeddings need a LightMBN or DeSKPro network.")
        if not held:
            raise MissingInputError(
                f"no checkpoints in {folder}: expected a workdir of deskpro_jax.main or deskpro_jax.convert, with"
                " student/ or teacher/ in it."
            )
        record = folder / RECORD
        converted = _json(record, record.read_text(encoding="utf-8")) if record.exists() else {}
        return *_choose(folder, held, face), converted.get(PREPROCESSING) or {}
    config = fields.flatten(_json(path, path.read_text(encoding="utf-8")))
    if missing := [name for name in _FIELDS if name not in config]:
        raise InputError(f"{path} has no field {missing[0]}: restore the file that the training wrote.")
    report, face = report or config["eval.report"], face or config["model.face"]
    body = body and bool(config["model.body"])
    roles: Roles = {}
    if body or face == "student":
        roles |= _phase(folder / "student" / "checkpoints", "student", str(report))
    if face == "teacher":
        roles |= _teacher(folder, config["teacher.checkpoint"], str(report))
    wanted = {*(("body",) if body else ()), *(() if face == "none" else (face,))}
    if missing := sorted(wanted - set(roles)):
        raise InputError(f"{folder}: its checkpoints hold {', '.join(roles)}, no {missing[0]} network.")
    settings = {name.split(".")[1]: config[name] for name in (*_FIELDS[:5], _RULE) if name in config}
    return {name: roles[name] for name in roles if name in wanted}, str(face), settings


def _teacher(folder: Path, checkpoint: str, report: str) -> Roles:
    """Returns the teacher of a workdir, which may be trained there or given by its configuration."""
    if not checkpoint:
        return _phase(folder / "teacher" / "checkpoints", "teacher", report)
    given = Path(checkpoint).expanduser()
    if given.is_file():
        return {"teacher": open_networks(given, role="teacher").loaded.variables["teacher"]}
    for candidate in (given / "teacher" / "checkpoints", given / "checkpoints", given):
        if candidate.is_dir() and candidate.name == "checkpoints":
            return _phase(candidate, "teacher", report)
    raise MissingInputError(f"no teacher at {given}, where the configuration of {folder} says that it is: put it back.")


def _phase(checkpoints: Path, phase: str, report: str) -> Roles:
    """Returns the networks that a phase's checkpoint holds."""
    if not checkpoints.is_dir():
        raise MissingInputError(f"no checkpoints in {checkpoints.parent}: train first, or correct the path.")
    state, _ = read_phase(checkpoints, report)
    return {
        role: {name: tree[module] for name, tree in state.items()}
        for role, (place, module) in PLACES.items()
        if place == phase and module in state["params"]
    }


def _choose(source: Path, held: Mapping[str, Mapping[str, Any]], face: str | None) -> tuple[Roles, str]:
    """Returns the networks to use of those that are there, and which face network is among them."""
    chosen = face or next((name for name in FACE_FIELDS if name in held), "none")
    if chosen != "none" and chosen not in held:
        raise InputError(f"{source} holds {', '.join(held)}, no {chosen} network: choose another face.")
    return {name: held[name] for name in ("body", chosen) if name in held}, chosen


def _assemble(source: Path, roles: Roles, face: str, dtype: str | None, settings: Mapping[str, Any]) -> Trained:
    defaults = base.get_config()
    dtype = dtype or settings.get("dtype") or defaults.model.dtype
    # As training has them: body and student are one network, the teacher is one by itself.
    together = [("body", "student"), ("teacher",)]
    networks, variables = [], []
    for names in together:
        if held := {name: roles[name] for name in names if name in roles}:
            networks.append(Network(_module(source, held, dtype), FACE_FIELDS.get(face, "face")))
            variables.append(_joined(held))
    dims = {network.module.feature_dim for network in networks}
    if len(dims) > 1:
        raise InputError(f"{source}: its networks give parts of {sorted(dims)} numbers; expected one length.")
    sizes = [_size(source, settings, name) or tuple(defaults.data[name]) for name in ("body_size", "face_size")]
    return Trained(
        tuple(networks),
        tuple(variables),
        face,
        dims.pop(),
        _checksum(variables),
        sizes[0],
        sizes[1],
        bool(settings.get("flip", defaults.eval.flip)),
        int(settings.get("batch", defaults.eval.batch)),
        dtype,
        str(settings.get("missing_face", defaults.eval.missing_face)),
        "body_size" in settings,
    )


def _module(source: Path, held: Roles, dtype: str) -> DeSKPro:
    """Returns the module of networks that are one."""
    known = {role: describe(role, values, "deskpro") for role, values in held.items()}
    kinds = {(s.backbone, os_streams, s.feature_dim, s.identities) for s, os_streams in known.values()}
    if len(kinds) > 1:
        raise InputError(
            f"{source}: its {' and '.join(held)} networks are of different kinds: {sorted(map(str, kinds))}."
        )
    backbone, os_streams, feature_dim, identities = kinds.pop()
    return DeSKPro(
        identities or 1,
        body="body" in held,
        face="body" not in held or len(held) > 1,
        backbone=backbone,
        streams=os_streams,
        attention=known["body"][0].attention if "body" in held else "none",
        feature_dim=feature_dim,
        dtype=jnp.dtype(dtype),
    )


def _joined(held: Roles) -> dict[str, dict[str, Any]]:
    """Returns the variables of networks that are one, by collection and stream."""
    joined: dict[str, dict[str, Any]] = {}
    for role, values in held.items():
        for collection, tree in values.items():
            joined.setdefault(collection, {})["body_stream" if role == "body" else "face_stream"] = tree
    return joined


def _size(source: Path, settings: Mapping[str, Any], name: str) -> Size | None:
    value = settings.get(name)
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(isinstance(v, int) and v > 0 for v in value):
        raise InputError(f"{source}: {name} is {value!r}; expected height and width in pixels.")
    return value[0], value[1]


def _checksum(variables: Sequence[Mapping[str, Any]]) -> str:
    """Returns a digest of names and values; classifiers, which no embedding depends on, stay out of it."""
    digest = hashlib.sha256()
    for values in variables:
        leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(values)}
        for name in sorted(leaves):
            if "['classifier']" in name:
                continue
            value = np.ascontiguousarray(leaves[name])
            digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds no JSON object where it should ({error}): restore it.") from error
