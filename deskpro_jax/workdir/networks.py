"""Opens networks: the one place that knows how, for a workdir, a converted workdir or a weights file.

The recorded configuration says what a network is (`config.json` of a training, `conversion.json` of converted
weights, the names in a weights file); the shapes of its parameters are only compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from deskpro_jax import methods
from deskpro_jax.checkpoints.metadata import saved_tree
from deskpro_jax.checkpoints.selection import METRICS, Steps, restore_reported
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.methods.deskpro import FACE_IMAGES
from deskpro_jax.models import initialisers
from deskpro_jax.models.check import DTYPES, FACES
from deskpro_jax.models.checksum import checksum_of
from deskpro_jax.models.contract import CLASSIFIER, Network, PhaseSpec, StreamSpec, embedding_streams, image_sizes
from deskpro_jax.runtime.forking import refuse_after_fork
from deskpro_jax.weights.opening import open_weights
from deskpro_jax.weights.other_files import refuse_unzipped
from deskpro_jax.weights.pretrained import find_weights, warn_of_drawn_people
from deskpro_jax.workdir.record import Record, file_record, read_record

Size = tuple[int, int]  # height, width in pixels
_SHOWN = 3  # parameters of other shapes that an error lists


class LoadedPhase(NamedTuple):
    """The network of a phase.

    Attributes:
        name: of the phase.
        network: the module, for as many identities as it was trained on, and its streams.
        variables: `params` and `batch_stats` on the host.
        steps: training step or, with "stitched", steps of its checkpoint.
        embeds: whether its streams are part of the embedding.
        no_classifiers: streams that were kept without classifiers, which are zeros in `variables`.
    """

    name: str
    network: Network
    variables: dict[str, Any]
    steps: Steps
    embeds: bool
    no_classifiers: frozenset[str]

    def stream_variables(self, stream: str) -> dict[str, Any]:
        """Returns the variables of one stream, by collection."""
        return {collection: tree[f"{stream}_stream"] for collection, tree in self.variables.items()}

    def step(self, stream: str) -> int:
        """Returns the training step of one stream."""
        return self.steps if isinstance(self.steps, int) else self.steps[stream]


class LoadedNetworks(NamedTuple):
    """Networks that together give an embedding, and how they are used.

    Attributes:
        phases: the networks that were opened.
        record: what the workdir or file says of them.
        config: the recorded configuration: model, sizes of images, evaluation.
    """

    phases: tuple[LoadedPhase, ...]
    record: Record
    config: ml_collections.ConfigDict

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks of the embedding."""
        return tuple(phase.network for phase in self.phases if phase.embeds)

    @property
    def variables(self) -> tuple[dict[str, Any], ...]:
        """The variables of the networks of the embedding."""
        return tuple(phase.variables for phase in self.phases if phase.embeds)

    @property
    def steps(self) -> dict[str, Steps]:
        """Step or steps by phase."""
        return {phase.name: phase.steps for phase in self.phases}

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        """The streams of an embedding, in order."""
        return embedding_streams(self.networks)

    @property
    def face(self) -> str:
        """Which face network is among them: "student", "teacher" or "none"."""
        images = {stream.image for stream in self.streams if stream.reads_face}
        return next((face for face, image in FACE_IMAGES.items() if image in images), "none")

    @property
    def sizes(self) -> dict[str, Size]:
        """Height and width of the images that are read, by field of a batch."""
        return image_sizes(self.config)

    @property
    def checksum(self) -> str:
        """SHA-256 of all numbers that an embedding depends on; the same wherever the networks are kept."""
        return checksum_of(self.variables)


def load_networks(
    source: str | Path,
    *,
    face: str | None = None,
    body: bool = True,
    dtype: str | None = None,
    report: str | None = None,
    role: str | None = None,
    os_streams: str | None = None,
    config: ml_collections.ConfigDict | None = None,
    every_phase: bool = False,
    weights: str | None = None,
) -> LoadedNetworks:
    """Opens the networks of a workdir, a converted workdir or a weights file.

    Args:
        source: the folder or file, or "pretrained:NAME" for weights that come with the package.
        face: "student", "teacher" (reads restored faces) or "none"; None for what the workdir was configured with.
        body: False leaves the body network out.
        dtype: of the computation, "float32" or "bfloat16"; None for that of the training.
        report: checkpoint, one of `selection.REPORTS`; None for what the workdir was configured with.
        role: which network a file holds, where its names do not say so.
        os_streams: OSBlock streams, where a file does not show them.
        config: takes the place of the recorded configuration; its model must be the recorded one.
        every_phase: opens every network that is there, not only those of the embedding.
        weights: "plain" or "ema", of a file that has both; None for the plain ones, with a warning.

    Returns:
        The networks.

    Raises:
        InputError: the source holds no such network, or cannot be read.
        MissingInputError: the file, folder or checkpoint does not exist.
        RunError: the process was forked after jax had started.
    """
    refuse_after_fork("networks cannot be opened")
    source = find_weights(source)
    warn_of_drawn_people(source)
    if not source.exists():
        raise MissingInputError(
            f"no file or folder at {source}: give a workdir, a converted workdir, a weights file or pretrained:NAME."
        )
    if face is not None and face not in FACES:
        raise InputError(f"face is {face!r}; expected one of {', '.join(FACES)}.")
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}.")
    states: dict[str, dict[str, Any]] = {}
    if source.is_dir():
        refuse_unzipped(source)
        if weights is not None:
            raise InputError(f"{source} is a folder, and weights (--weights) choose within a file: leave it out.")
        record = read_record(source)
    else:
        opened = open_weights(source, role=role, os_streams=os_streams, weights=weights)
        record, states = file_record(source, opened), opened.states
    config = ml_collections.ConfigDict((record.config if config is None else config).to_dict())
    _choose_streams(source, config, states, face, body)
    if dtype is not None:
        config.model.dtype = dtype
    specs = {spec.name: spec for spec in methods.phases(config) if spec.embeds}
    if every_phase:
        specs = _every_phase(config, source, states) | specs
    loaded = []
    steps: Steps
    for spec in reversed(specs.values()):  # the student, which may hold the body stream, before its teacher
        steps = 0
        if spec.name in states:
            state = states[spec.name]
        elif every_phase and not (source / spec.name / "checkpoints").is_dir():
            continue
        else:
            state, steps = _read_phase(source, spec, config, report or config.eval.report)
        loaded.append(_fit(source, spec, config, state, steps))
    if not loaded:
        raise MissingInputError(f"no checkpoints in {source}: train first, or correct the path.")
    return LoadedNetworks(tuple(loaded), record, config)


def _choose_streams(
    source: Path, config: ml_collections.ConfigDict, states: Mapping[str, Any], face: str | None, body: bool
) -> None:
    """Writes the requested streams into the configuration."""
    if face is not None:
        config.model.face = face
    config.model.body = bool(config.model.body and body)
    if not config.model.body and config.model.face == "none":
        raise InputError(f"{source} has no body network, and face='none' asks for none: choose another face.")
    missing = {"student": ("student", "face_stream"), "teacher": ("teacher", "face_stream")}.get(config.model.face)
    if states and missing and missing[1] not in states.get(missing[0], {}).get("params", {}):
        names = [stream.removesuffix("_stream") for state in states.values() for stream in state["params"]]
        raise InputError(f"{source} holds {', '.join(names)}, no {config.model.face} network: choose another face.")


def _every_phase(config: ml_collections.ConfigDict, source: Path, states: Mapping[str, Any]) -> dict[str, PhaseSpec]:
    """Returns also the phases whose networks are there and not in the embedding, as the teacher of a student."""
    return {spec.name: spec for spec in methods.phases(config) if states or (source / spec.name).is_dir()}


def _read_phase(
    source: Path, spec: PhaseSpec, config: ml_collections.ConfigDict, report: str
) -> tuple[dict[str, Any], Steps]:
    """Reads the checkpoint of a phase, of the teacher that the configuration names where it names one."""
    folder = source / spec.name / "checkpoints"
    if spec.name == "teacher" and config.teacher.checkpoint:
        path = find_weights(config.teacher.checkpoint)
        if path.is_file():
            if config.teacher.method:
                return _as_face(path, open_weights(path).states), 0
            opened = open_weights(path, role="teacher", os_streams=config.model.streams)
            return opened.states["teacher"], 0
        folder = teacher_checkpoints(path)
    if not folder.is_dir():
        raise MissingInputError(f"no checkpoints in {folder.parent}: train first, or correct the path.")
    return read_checkpoint(folder, report)


def _as_face(path: Path, states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the network of a file that holds a single one as the face stream."""
    networks = [state for state in states.values() if len(state["params"]) == 1]
    if len(networks) != 1:
        raise InputError(f"teacher.checkpoint: {path} holds several networks; expected one of teacher.method.")
    return {collection: {"face_stream": next(iter(tree.values()))} for collection, tree in networks[0].items()}


def teacher_checkpoints(path: Path) -> Path:
    """Returns the folder of a trained teacher's checkpoints.

    Args:
        path: a workdir, the folder of its teacher phase, or the checkpoints themselves.

    Raises:
        MissingInputError: there are none.
    """
    if path.is_dir():
        refuse_unzipped(path)
    for candidate in (path / "teacher" / "checkpoints", path / "checkpoints", path):
        if candidate.is_dir() and candidate.name == "checkpoints":
            return candidate
    raise MissingInputError(
        f"teacher.checkpoint is {path}; expected a workdir with teacher/checkpoints, the teacher/ folder of one, or a"
        " weights file."
    )


def read_checkpoint(folder: Path, report: str) -> tuple[dict[str, Any], Steps]:
    """Reads parameters and statistics of a phase.

    Args:
        folder: its `checkpoints` folder.
        report: which checkpoint, as `eval.report`.

    Returns:
        The variables by collection ("params", "batch_stats") on the host, and the step or steps.

    Raises:
        MissingInputError: there is no checkpoint.
        RunError: every one is damaged.
    """
    tree = saved_tree(folder)
    if tree is None:
        raise MissingInputError(f"no checkpoint in {folder}: train first, or correct the path.")
    with CheckpointStore(folder, best_metric=METRICS, read_only=True) as store:
        template = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
            {name: tree[name] for name in ("params", "batch_stats") if name in tree},
        )
        restored = restore_reported(store, template, report)
    if restored is None:
        raise MissingInputError(f"no checkpoint in {folder}: train first, or correct the path.")
    return jax.tree.map(jax.device_get, restored[0]), restored[1]


def _fit(
    source: Path, spec: PhaseSpec, config: ml_collections.ConfigDict, state: Mapping[str, Any], steps: Steps
) -> LoadedPhase:
    """Builds the module of a phase and compares its parameters with those that were read."""
    state = {name: _nested(tree) for name, tree in state.items()}
    network = spec.network(config, _identities(state["params"]) or 1)
    shapes = initialisers.variable_shapes(network.module, image_sizes(config))
    variables: dict[str, Any] = {}
    for collection, expected in shapes.items():
        held = state.get(collection, {})
        if missing := sorted(set(expected) - set(held)):
            there = ", ".join(name.removesuffix("_stream") for name in held)
            raise InputError(
                f"{source}: the checkpoints of its {spec.name} phase hold {there}, no"
                f" {missing[0].removesuffix('_stream')} network."
            )
        variables[collection] = {name: held[name] for name in expected}
    no_classifiers = frozenset(
        stream.removesuffix("_stream")
        for stream, tree in variables["params"].items()
        if not any(name.startswith(CLASSIFIER) for name in tree)
    )
    variables["params"] = _with_classifiers(shapes["params"], variables["params"])
    wrong = _differences(shapes, variables)
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InputError(
            f"{source}: the {spec.name} network is not what its configuration says: {'; '.join(wrong[:_SHOWN])}{more}."
            " Restore the files that belong together."
        )
    return LoadedPhase(spec.name, network, variables, steps, spec.embeds, no_classifiers)


def _nested(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters of a phase by stream; earlier versions kept a converted OSNet without that level."""
    return {"body_stream": dict(tree)} if "trunk" in tree else dict(tree)


def _identities(params: Mapping[str, Any]) -> int | None:
    """Returns the number of identities of the classifiers, None where there are none."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if any(str(entry.key).startswith(CLASSIFIER) for entry in path):
            return int(leaf.shape[-1])
    return None


def _with_classifiers(shapes: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters with zeros for each classifier that they were kept without: no embedding uses it."""
    result = dict(params)
    for name, expected in shapes.items():
        if name.startswith(CLASSIFIER):
            result.setdefault(name, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), expected))
        elif isinstance(expected, Mapping) and isinstance(params.get(name), Mapping):
            result[name] = _with_classifiers(expected, params[name])
    return result


def _differences(expected: Any, variables: Any) -> list[str]:
    shapes, arrays = (
        {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (expected, variables)
    )
    return [
        f"{name} has shape {arrays.get(name, 'none')}, the module {shapes.get(name, 'none')}"
        for name in sorted({*shapes, *arrays})
        if shapes.get(name) != arrays.get(name)
    ]
