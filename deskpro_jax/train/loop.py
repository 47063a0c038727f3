"""Repeats the training step of one phase: data in, metrics and checkpoints out, stop and resume at any step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import logging
from clu import metrics as clu_metrics
from clu import parameter_overview
from jax.sharding import Mesh

from deskpro_jax.checkpoints.selection import METRICS, Steps, restore_reported
from deskpro_jax.checkpoints.store import CheckpointStore, Restored
from deskpro_jax.data.load import pipeline
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.errors import RunError, Stopped
from deskpro_jax.methods.deskpro import DeSKPro, init_variables
from deskpro_jax.runtime import cpu, sharding
from deskpro_jax.runtime.compilation import compile_now
from deskpro_jax.runtime.processes import any_process, sum_over_processes
from deskpro_jax.runtime.progress import Progress
from deskpro_jax.runtime.signals import SignalGuard
from deskpro_jax.train import optimisers
from deskpro_jax.train import step as train
from deskpro_jax.train.metrics_file import MetricWriter

_AGREE_EVERY = 10  # steps between two agreements on stopping when there are several processes


@dataclass(frozen=True)
class Phase:
    """What one phase trains, and on what."""

    name: str  # "teacher" or "student"
    module: DeSKPro
    epochs: int
    fields: tuple[str, ...]  # images to decode
    split: ReIDSplit
    teacher: DeSKPro | None = None
    teacher_variables: Any = None
    start: Callable[[Any], Any] | None = None  # drawn variables -> those a phase that is not under way begins with


class _Begun(NamedTuple):
    """What a checkpoint says beside the state: the scores of its step, loss terms not written yet, images skipped."""

    scored: bool = False
    unwritten: tuple[tuple[int, dict[str, Any]], ...] = ()
    skipped: int = 0


def run_phase(
    phase: Phase,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    folder: Path,
    guard: SignalGuard,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
) -> tuple[dict[str, Any], Steps]:
    """Trains a phase to its end, or goes on from its latest checkpoint; one of no epochs saves what it begins with.

    Args:
        phase: what to train.
        config: the whole configuration.
        mesh: the devices.
        folder: `<workdir>/<phase>`; gets `checkpoints/`, `metrics.jsonl`, event files and `parameters.txt`.
        guard: says whether a signal asked to stop.
        evaluate: variables -> scores by name, called every `eval.every` epochs and at the end; `METRICS`
            among them decide which checkpoints are the best.

    Returns:
        Variables after the last step, or of the checkpoint that `eval.report` asks for, and their step or steps.

    Raises:
        Stopped: on a signal, after saving.
        RunError: a loss is not finite.
    """
    steps = pipeline.steps_per_epoch(phase.split, config)
    total = steps * phase.epochs
    batch_images = config.data.identities * config.data.images_per_identity
    rates = optimisers.learning_rates(
        optimisers.base_learning_rate(config.train.base_lr, batch_images),
        max(phase.epochs, 1),
        config.train.warmup_epochs,
        config.train.final_fraction,
        config.train.schedule_epochs if phase.name == "student" else 0,
    )
    optimizer = optimisers.adam(optimisers.schedule(rates, steps), config.train.weight_decay)
    with CheckpointStore(
        folder / "checkpoints", best_metric=METRICS, asynchronous=config.checkpoint.asynchronous
    ) as store:
        with guard.expendable(f"the {phase.name} made no new step; run again to go on."):
            drawn = init_variables(phase.module, _init_seed(config.seed, phase.name))
            restored = store.restore(_as_tree(_expected_state(drawn, optimizer, mesh)))
            if restored is not None:
                state = train.TrainState(**restored.state)
            else:
                state = _first_state(drawn if phase.start is None else phase.start(drawn), optimizer, mesh)
            del drawn  # large, where there are many identities
        if total == 0 and restored is None:
            store.save(0, _as_tree(state), data=_about(phase, config, 0.0, 0))
        first, before = int(state.step), _begun(restored)
        if first > total:
            raise RunError(
                f"{folder} is at step {first}, beyond the {total} steps of {phase.epochs} epochs: "
                "it was trained for longer; raise the number of epochs or use another workdir."
            )
        if first < total or (total and evaluate is not None and not before.scored):
            state = _train(phase, config, mesh, folder, guard, evaluate, store, optimizer, state, rates, steps, before)
        if config.eval.report != "last":
            chosen = restore_reported(store, state.variables, config.eval.report)
            assert chosen is not None  # the end of the phase is saved
            return chosen
    return state.variables, int(state.step)


def _expected_state(variables: Any, optimizer: Any, mesh: Mesh) -> train.TrainState:
    """Returns shapes, types and places of a state, without its values."""
    shapes = jax.eval_shape(lambda v: train.create_state(v, optimizer), variables)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        sharding.placement(mesh, shapes),
    )


def _first_state(variables: Any, optimizer: Any, mesh: Mesh) -> train.TrainState:
    places = jax.tree.map(lambda leaf: leaf.sharding, _expected_state(variables, optimizer, mesh))
    create = jax.jit(lambda v: train.create_state(v, optimizer), out_shardings=places)
    return create(sharding.put_variables(mesh, variables))


def _init_seed(seed: int, phase: str) -> int:
    return 2 * seed + (phase == "teacher")  # teacher and student must not start from the same values


def _as_tree(state: train.TrainState) -> dict[str, Any]:
    return {
        "step": state.step,
        "params": state.params,
        "batch_stats": state.batch_stats,
        "opt_state": state.opt_state,
    }


def _train(
    phase: Phase,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    folder: Path,
    guard: SignalGuard,
    evaluate: Callable[[Any], Mapping[str, float]] | None,
    store: CheckpointStore,
    optimizer: Any,
    state: train.TrainState,
    rates: np.ndarray,
    steps: int,
    before: _Begun,
) -> train.TrainState:
    first, total = int(state.step), steps * phase.epochs
    batch_images = config.data.identities * config.data.images_per_identity
    step_fn = train.make_train_step(phase.module, optimizer, config, phase.name, phase.teacher, steps, mesh)
    step_fn = train.jit_step(step_fn, mesh, state, phase.teacher_variables)
    key = sharding.put_replicated(mesh, jax.random.key_data(train.fold(jax.random.key(config.seed), phase.name)))
    key = jax.random.wrap_key_data(key)
    batches = pipeline.train_batches(
        phase.split,
        config,
        seed=config.seed,
        phase=phase.name,
        start_step=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        fields=phase.fields,
        pad_to_multiple=math.lcm(mesh.size, jax.process_count()),
        enlarge=_left_to_device(phase, config),
    )
    main_process = jax.process_index() == 0
    if main_process:
        folder.mkdir(parents=True, exist_ok=True)
        here = all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in jax.tree.leaves(state.params))
        overview = parameter_overview.get_parameter_overview(state.params, include_stats=here)
        (folder / "parameters.txt").write_text(overview + "\n")
    pending = list(before.unwritten)
    program: jax.stages.Compiled | None = None

    def is_scored(step: int) -> bool:
        due = step > 0 and step % steps == 0 and _is_due(step // steps, phase.epochs, config.eval.every)
        return evaluate is not None and due

    def score(step: int, writer: MetricWriter) -> None:
        assert evaluate is not None
        message = f"saved the {phase.name} after step {step} of {total}; run again to go on with its evaluation."
        with guard.expendable(message, store.wait), cpu.freed_memory_returned():
            scores = dict(evaluate(state.variables))
        writer.scalars(step, scores, epoch=step // steps)
        store.add_metrics(step, scores)

    redo = is_scored(first) and not before.scored  # a run that ended while it evaluated
    with (
        MetricWriter(folder, resume_step=first, redo=METRICS if redo else (), enabled=main_process) as writer,
        Progress(total, phase.name, start=first, images_per_step=batch_images, enabled=main_process) as progress,
    ):
        if redo:
            score(first, writer)
        for step in range(first + 1, total + 1):
            batch = sharding.put_batch(mesh, next(batches))
            with _compiling(guard, phase.name, step, first):
                given = (state, phase.teacher_variables, batch, key)
                program = program or compile_now(step_fn, *given)
                state, terms = program(*given)
            pending.append((step, terms))
            if len(pending) > 1:  # one step runs while the host prepares the next: no further ahead, no idle device
                jax.block_until_ready(pending[-2][1]["total"])
            epoch_ends = step % steps == 0
            epoch = step // steps
            stop = _stop_requested(guard, step, epoch_ends)
            skipped = before.skipped
            if config.data.skip_corrupt and (stop or epoch_ends):
                skipped += sum_over_processes(sum(batches.skipped.values()))
            means = None
            if len(pending) >= config.train.log_every or epoch_ends or step == 1:
                means = _means(_fetch_terms(pending, phase.name, store))
                pending.clear()
                rate = float(rates[min((step - 1) // steps, len(rates) - 1)])
                counts = {"skipped_images": skipped} if config.data.skip_corrupt and epoch_ends else {}
                writer.scalars(step, {**means, "learning_rate": rate, **counts}, epoch=step / steps)
            progress.advance(means)
            if stop or (epoch_ends and (is_scored(step) or _is_due(epoch, phase.epochs, config.checkpoint.every))):
                data = _about(phase, config, step / steps, skipped)
                if pending:  # the line that they belong to is written by the run that goes on
                    data["unwritten"] = _fetch_terms(pending, phase.name, store)
                store.save(step, _as_tree(state), data=data, wait=bool(stop))
            if stop:
                batches.close()
                raise Stopped(f"{stop}: saved the {phase.name} after step {step} of {total}; run again to go on.")
            if is_scored(step):  # after saving, so that a run that ends meanwhile goes on from here
                with progress.paused():
                    score(step, writer)
    batches.close()
    if batches.skipped:
        logging.warning("%s: %d reads of unreadable images skipped", phase.name, sum(batches.skipped.values()))
    return state


def _left_to_device(phase: Phase, config: ml_collections.ConfigDict) -> list[str]:
    """Returns the photos that all processes leave to the device to enlarge: they run one program."""
    small = pipeline.device_enlarges(phase.split, config, phase.fields)
    return [name for name in phase.fields if not any_process(name not in small)]


def _about(phase: Phase, config: ml_collections.ConfigDict, epoch: float, skipped: int) -> dict[str, Any]:
    """Returns what a checkpoint says beside the state."""
    return {"epoch": epoch, "phase": phase.name, "seed": config.seed, "skipped": skipped}


def _begun(restored: Restored | None) -> _Begun:
    if restored is None:
        return _Begun()
    rows = restored.data.get("unwritten", [])
    unwritten = tuple((step, {name: np.float32(value) for name, value in terms.items()}) for step, terms in rows)
    return _Begun(restored.metrics is not None, unwritten, restored.data.get("skipped", 0))


def _compiling(guard: SignalGuard, phase: str, step: int, first: int) -> contextlib.AbstractContextManager[None]:
    """Returns what the first step of a process runs in: it compiles for minutes, and nothing is new before it."""
    if step != first + 1:
        return contextlib.nullcontext()
    return guard.expendable(f"the {phase} made no new step after step {first}; run again to go on.")


def _is_due(epoch: int, epochs: int, every: int) -> bool:
    return epoch == epochs or (every > 0 and epoch % every == 0)


def _stop_requested(guard: SignalGuard, step: int, epoch_ends: bool) -> str | None:
    """Returns the signal all processes agree to stop for; asked often when alone, seldom when it costs a message."""
    if jax.process_count() == 1:
        return guard.requested
    if step % _AGREE_EVERY and not epoch_ends:
        return None
    return (guard.requested or "signal") if any_process(guard.requested is not None) else None


def _fetch_terms(
    pending: list[tuple[int, dict[str, Any]]], phase: str, store: CheckpointStore
) -> list[tuple[int, dict[str, float]]]:
    """Fetches the loss terms of several steps, as floats that hold float32 values.

    Raises:
        RunError: one of them is not finite.
    """
    rows = jax.device_get([terms for _, terms in pending])
    for (step, _), terms in zip(pending, rows, strict=True):
        bad = [name for name in sorted(terms, key="total".__eq__) if not np.isfinite(terms[name])]
        if bad:
            good = store.latest_step()
            raise RunError(
                f"the loss term {bad[0]} of the {phase} phase is {terms[bad[0]]} at step {step}. Last good checkpoint: "
                f"{f'step {good}' if good is not None else 'none yet'}. Lower train.base_lr, lengthen "
                "train.warmup_epochs, or use model.dtype=float32, and run again."
            )
    return [
        (step, {name: float(value) for name, value in row.items()})
        for (step, _), row in zip(pending, rows, strict=True)
    ]


def _means(rows: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Averages the loss terms of several steps."""
    averages = {
        name: clu_metrics.Average.from_model_output(np.asarray([row[name] for _, row in rows], np.float32)).compute()
        for name in rows[0][1]
    }
    return {name: float(value) for name, value in averages.items()}
