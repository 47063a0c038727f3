"""The networks of a workdir: which there are, their variables, and what each is by the shapes of these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from deskpro_jax.checkpoints.metadata import saved_tree
from deskpro_jax.checkpoints.selection import METRICS, Steps, restore_reported
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.models.osnet import BACKBONES
from deskpro_jax.weights.deskpro import STREAMS as PREFIXES
from deskpro_jax.weights.families import Stream
from deskpro_jax.workdir import layout

RECORD = "conversion.json"
PREPROCESSING = "preprocessing"  # key of what is known of how images go in, in a file's metadata and in RECORD
LEFT_OUT = "left_out.safetensors"  # what no variable holds, so that the way back is exact
START = "start.json"  # in a phase's folder: the published weights that it began with
# Where each network goes: the phase's folder, and the name of the stream within its model ("": it is the model).
PLACES = {
    "teacher": ("teacher", "face_stream"),
    "student": ("student", "face_stream"),
    "body": ("student", "body_stream"),
    "osnet": ("osnet", ""),
}


class Networks(NamedTuple):
    """What a workdir holds.

    Attributes:
        variables: `params` and `batch_stats` of each network, by role ("body", "student", "teacher" or "osnet").
        steps: step or steps of each phase.
        config: the run's configuration, None where the workdir has none.
        results: its `results.json`, None where it was not evaluated.
        origin: `conversion.json` of weights that came from a file.
        starts: `start.json` of each phase that began with published weights.
    """

    variables: dict[str, Any]
    steps: dict[str, Steps]
    config: dict[str, Any] | None
    results: dict[str, Any] | None
    origin: dict[str, Any] | None
    starts: dict[str, dict[str, Any]]

    @property
    def family(self) -> str:
        """Whose names the networks have by default: those of the file they came from, or DeSKPro's."""
        return str((self.origin or {}).get("family") or "deskpro")

    @property
    def class_order(self) -> str:
        """How the classifiers count identities: as the file they came from, or by number."""
        return "number" if self.origin is None else str(self.origin.get("class_order", "text"))

    def step(self, role: str) -> int:
        """The training step of one network."""
        steps = self.steps[PLACES[role][0]]
        return steps if isinstance(steps, int) else steps["body" if role == "body" else "face"]


def describe(role: str, variables: Mapping[str, Any], family: str) -> tuple[Stream, str]:
    """Returns what a network is, from the shapes of its variables, and the OSBlock streams it runs.

    Args:
        role: "body", "student", "teacher" or "osnet".
        variables: `params` and `batch_stats` of one stream (or of an OSNet).
        family: whose names it will have.
    """
    params = variables["params"]
    trunk = params["trunk"]
    width, norm = int(trunk["stem"]["kernel"].shape[-1]), "instance_norm" in trunk["block2_0"]
    backbone = next((n for n, b in BACKBONES.items() if (b.channels[0], b.instance_norm) == (width, norm)), None)
    if backbone is None:
        raise InputError(f"the {role} network starts with {width} channels, which no OSNet does.")
    running = trunk["block2_0"]["stage0"]["pointwise"]["kernel"].shape[0]
    attention = "none"
    if "attention" in params:
        attention = "released" if "conv1" in params["attention"] else "paper"
    classes = params["classifier"]["kernel"].shape[-1] if "classifier" in params else None
    features = params["fc_norm" if role == "osnet" else "neck"]["scale"].shape[-1]
    prefix = PREFIXES[role] if family == "deskpro" else ""
    stream = Stream(role, prefix, backbone, attention, int(features), None if classes is None else int(classes))
    return stream, "abcd" if running == 4 else "aacd"


def read_networks(folder: Path, report: str = "last") -> Networks:
    """Reads every network of a workdir.

    Args:
        folder: a workdir of training, or of converted weights.
        report: which checkpoint, as `eval.report`.

    Raises:
        MissingInputError: it holds no checkpoints.
        InputError: one of its JSON files is none.
    """
    variables: dict[str, Any] = {}
    steps: dict[str, Steps] = {}
    starts: dict[str, dict[str, Any]] = {}
    for phase in dict.fromkeys(phase for phase, _ in PLACES.values()):
        if not (folder / phase / "checkpoints").is_dir():
            continue
        state, steps[phase] = read_phase(folder / phase / "checkpoints", report)
        for role, (place, module) in PLACES.items():
            if place == phase and (not module or module in state["params"]):
                variables[role] = {name: tree[module] if module else tree for name, tree in state.items()}
        start = read_json(folder / phase / START)
        if start is not None:
            starts[phase] = start
    if not variables:
        raise MissingInputError(f"no checkpoints in {folder}: expected a workdir with student/ or teacher/.")
    config, results = read_json(folder / layout.CONFIG_FILE), read_json(folder / layout.RESULTS_FILE)
    return Networks(variables, steps, config, results, read_json(folder / RECORD), starts)


def read_phase(folder: Path, report: str) -> tuple[dict[str, Any], Steps]:
    """Reads parameters and statistics of a phase with the shapes that the checkpoint itself names.

    Args:
        folder: its `checkpoints` folder.
        report: which checkpoint, as `eval.report`.

    Returns:
        `{"params": ..., "batch_stats": ...}` on the host, and the step or steps.

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
            {name: tree[name] for name in ("params", "batch_stats")},
        )
        restored = restore_reported(store, template, report)
    if restored is None:
        raise MissingInputError(f"no checkpoint in {folder}: train first, or correct the path.")
    return jax.tree.map(jax.device_get, restored[0]), restored[1]


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file, None where there is none."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): restore it, or move it away.") from error
