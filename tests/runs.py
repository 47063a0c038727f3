"""Runs of the debug size that several test modules share: their configuration, the command line, what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import synthetic
from deskpro_jax import experiment
from deskpro_jax.checkpoints import templates
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.evaluation.evaluate import Result
from deskpro_jax.methods import deskpro
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import Counts
from deskpro_jax.train import optimisers, schedules
from deskpro_jax.train import step as train
from deskpro_jax.train.state import as_tree
from small_backbones import TINY

ROOT = Path(__file__).parents[1]
CLASSES = 8  # training identities of synthetic_tiny
STEPS = {"teacher": 5, "student": 6}  # an epoch: the teacher sees only images with a face
COMMON: dict[str, Any] = {
    "model.backbone": TINY,  # tests of OSNet itself say model__backbone="x0_25"
    "teacher.epochs": 2,
    "train.epochs": 2,
    # So small that device counts can be compared: training at the usual rate multiplies rounding tenfold a step.
    "train.base_lr": 1e-7,
    "train.log_every": 1,
    "augment.erase": 0.5,
    "eval.every": 0,
    "eval.baselines": False,
}


def config(data_dir: Path, variant: str = "debug", **fields: Any) -> ConfigDict:
    """Returns the debug configuration; fields with `__` for the dot, as train__epochs=3."""
    c = synthetic.get_config(variant)
    given = {name.replace("__", "."): value for name, value in fields.items()}
    c.update_from_flattened_dict({**COMMON, "data.data_dir": str(data_dir), **given})
    return c


def run(c: ConfigDict, folder: Path, mode: str = "train") -> list[Result]:
    """Runs an experiment in this process."""
    return experiment.run(c, folder, mode)


def flags(workdir: Path, data_dir: Path, variant: str = "debug", **fields: Any) -> list[str]:
    """Returns the command line that runs `config(data_dir, variant, **fields)` in `workdir`."""
    given = {**COMMON, "data.data_dir": data_dir, **{name.replace("__", "."): v for name, v in fields.items()}}
    settings = [f"--config.{name}={value}" for name, value in given.items()]
    return [f"--config={ROOT / 'configs/synthetic.py'}:{variant}", f"--workdir={workdir}", *settings]


def environment(devices: int | None = None) -> dict[str, str]:
    """Returns the environment of a process that a test starts: compiled as here, with this folder's modules."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    if devices is not None:
        count = f"--xla_force_host_platform_device_count={devices}"
        env |= {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}".strip(), "JAX_PLATFORMS": "cpu"}
    return env


def start(arguments: Sequence[str], *, devices: int | None = None) -> subprocess.Popen[str]:
    """Starts Python in the project's folder."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Waits; returns exit code (negative: a signal), standard output and standard error."""
    try:
        out, err = process.communicate(timeout=900)
    finally:
        process.kill()
    return process.returncode, out, err


def command(arguments: Sequence[str], *, devices: int | None = None) -> tuple[int, str, str]:
    """Runs `python -m deskpro_jax.main` to its end."""
    return finish(start(["-m", "deskpro_jax.main", *arguments], devices=devices))


def interrupt(signal: str, phase: str, step: int, arguments: Sequence[str], *, devices: int | None = None) -> Any:
    """Runs the command, which gets `signal` after `step` of `phase`; returns what `finish` does."""
    script = str(Path(__file__).with_name("interrupted.py"))
    return finish(start([script, signal, phase, str(step), *arguments], devices=devices))


def lines(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`, which have to be strict JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """Returns the loss terms and the learning rate by step, each of which has to be there once."""
    found: dict[int, dict[str, float]] = {}
    for line in lines(folder):
        if "total" in line:
            assert line["step"] not in found, f"step {line['step']} twice in {folder}"
            others = ("step", "time", "epoch", *train.NORMS)
            found[line["step"]] = {name: value for name, value in line.items() if name not in others}
    return found


def saved_steps(folder: Path) -> tuple[int, ...]:
    """Returns the steps of the checkpoints of a phase."""
    with CheckpointStore(folder / "checkpoints", best_metric="mAP", read_only=True) as store:
        return store.steps()


def saved_state(workdir: Path, phase: str, c: ConfigDict, step: int | None = None) -> dict[str, np.ndarray]:
    """Returns every leaf of a checkpoint, the latest by default, by its path."""
    build = deskpro.build_teacher if phase == "teacher" else deskpro.build
    variables = initialisers.init_variables(build(c, Counts(CLASSES)), 0)
    optimizer = optimisers.adam(schedules.schedule(np.zeros(c.train.epochs), 1), c.train.weight_decay)
    template = as_tree(train.create_state(variables, optimizer))
    with CheckpointStore(workdir / phase / "checkpoints", best_metric="mAP", read_only=True) as store:
        restored = store.restore(jax.tree.map(jax.numpy.asarray, template), "latest" if step is None else step)
    assert restored is not None
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(restored.state)
    }


def stored_state(folder: Path, step: int) -> dict[str, np.ndarray]:
    """Returns every leaf of a checkpoint of a phase by its path, whatever network it is of."""
    shapes = templates.saved_shapes(folder / "checkpoints" / str(step))
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)
    with CheckpointStore(folder / "checkpoints", best_metric="mAP", read_only=True) as store:
        restored = store.restore(template, step)
    assert restored is not None
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(restored.state)
    }


def assert_same_state(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Fails unless all leaves are equal bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.dtype == found[name].dtype
        assert value.tobytes() == found[name].tobytes(), name
