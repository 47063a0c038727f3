"""Repeats the training step of one phase: data in, metrics and checkpoints out, stop and resume at any step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from clu import parameter_overview
from jax.sharding import Mesh

from deskpro_jax.checkpoints.selection import METRICS, Steps, refuse_not_finite, restore_reported
from deskpro_jax.checkpoints.store import CheckpointStore, Restored
from deskpro_jax.data.load import pipeline
from deskpro_jax.data.load.dataset import clothes_classes, train_classes
from deskpro_jax.errors import RunError, Stopped
from deskpro_jax.models.contract import Counts, image_sizes
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.runtime import cpu, profile, sharding
from deskpro_jax.runtime.compilation import compile_now
from deskpro_jax.runtime.processes import any_process, sum_over_processes
from deskpro_jax.runtime.progress import Progress
from deskpro_jax.runtime.signals import SignalGuard
from deskpro_jax.train import loss_terms, optimisers, schedules
from deskpro_jax.train import state as state_
from deskpro_jax.train import step as train
from deskpro_jax.train.epoch_work import EpochWork, with_new_parameters, with_saved_shapes
from deskpro_jax.train.metrics_file import MetricWriter
from deskpro_jax.train.phase import Evaluate, PhaseSetup, ResumeInfo, Training


def run_phase(
    phase: PhaseSetup,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    folder: Path,
    guard: SignalGuard,
    evaluate: Evaluate | None = None,
) -> tuple[dict[str, Any], Steps]:
    """Trains a phase to its end, or goes on from its latest checkpoint; one of no epochs saves its initial variables.

    Args:
        phase: what to train.
        config: the whole configuration.
        mesh: the devices.
        folder: `<workdir>/<phase>`; gets `checkpoints/`, `metrics.jsonl`, event files, `parameters.txt` and, with
            `train.profile_steps`, `profile/`.
        guard: reports whether a signal asked to stop.
        evaluate: variables -> scores by name, called every `eval.every` epochs and at the end; `METRICS`
            among them decide which checkpoints are the best.

    Returns:
        Variables after the last step, or of the checkpoint that `eval.report` asks for, and their step or steps.

    Raises:
        Stopped: on a signal, after saving.
        RunError: a loss is not finite.
    """
    checkpoints, asynchronous = folder / "checkpoints", config.checkpoint.asynchronous
    with CheckpointStore(checkpoints, best_metric=METRICS, asynchronous=asynchronous) as store:
        run = prepare(phase, config, mesh, guard, evaluate, store)
        if run.step > run.total:
            raise RunError(
                f"{folder} is at step {run.step}, beyond the {run.total} steps of {phase.epochs} epochs: "
                "it was trained for longer; raise the number of epochs or use another workdir."
            )
        if run.step < run.total or (run.score_due and not run.resumed.scored):
            train_steps(run, folder)
        if config.eval.report != "last":
            chosen = restore_reported(store, run.state.variables, config.eval.report)
            assert chosen is not None  # the end of the phase is saved
            return chosen
    return run.state.variables, run.step


def prepare(
    phase: PhaseSetup,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    guard: SignalGuard,
    evaluate: Evaluate | None,
    store: CheckpointStore,
) -> Training:
    """Returns a phase with the state of its latest checkpoint, or with the initial one where there is none."""
    epoch_steps = pipeline.steps_per_epoch(phase.split, config)
    batch, epochs = _batch_images(config), max(phase.epochs, 1)
    rates = schedules.epoch_rates(config.train, batch, epochs, phase.schedule_epochs, phase.recipe.schedule)
    schedule = schedules.schedule(rates, epoch_steps)
    optimizer = optimisers.of_recipe(phase.recipe, schedule, config.train, epoch_steps)
    with guard.expendable(f"the {phase.name} made no new step; run again to go on."):
        seed = _init_seed(config.seed, phase.name)
        counts = Counts(len(train_classes(phase.split)), len(clothes_classes(phase.split)))
        variables = init_variables(phase.module, seed, image_sizes(config))
        variables = loss_terms.with_own_parameters(variables, phase.recipe.losses, counts, seed)

        def template(saved: Any) -> Any:
            fitting = variables if phase.recipe.between_epochs is None else with_saved_shapes(variables, saved)
            return state_.as_tree(state_.expected_state(fitting, optimizer, mesh))

        restored = store.restore(template)
        if restored is not None:
            state = train.TrainState(**restored.state)
            refuse_not_finite(store.directory, restored.step, state.variables)
        else:
            initial = variables if phase.pretrained is None else phase.pretrained(variables)
            state = state_.initial_state(initial, optimizer, mesh)
    resumed = _resume_info(restored)
    run = Training(
        *(phase, config, mesh, guard, evaluate, store, optimizer, rates, epoch_steps, state, int(state.step), resumed),
        pending=list(resumed.unwritten),
        skipped=resumed.skipped,
    )
    if restored is None and run.total == 0:
        checkpoint(run)
    return run


def train_steps(run: Training, folder: Path) -> None:
    """Takes the steps that are left, and saves and scores the state whenever that is due.

    Raises:
        Stopped: on a signal, after saving.
        RunError: a loss is not finite.
    """
    phase, config, mesh, first = run.phase, run.config, run.mesh, run.step
    redo = run.score_due and not run.resumed.scored  # the last run ended while it evaluated
    main = jax.process_index() == 0
    if main:
        _write_overview(folder, run.state.params)
    epoch_work = EpochWork(phase.recipe, folder, run.epoch_steps, phase.images)
    key = _phase_key(run)
    program: jax.stages.Compiled | None = None
    images = _batch_images(config)
    compiled_for: Any = None
    with (
        contextlib.closing(_batches(run)) as batches,
        MetricWriter(folder, resume_step=first, redo=METRICS if redo else (), enabled=main) as writer,
        Progress(
            run.total, phase.name, start=first, images_per_step=images, enabled=main, outlook=phase.outlook
        ) as progress,
        profile.StepProfile(folder / "profile", config.train.profile_steps, enabled=main) as profiled,
    ):
        if redo:
            score(run, writer)
        while run.step < run.total:
            start = epoch_work.begin(run.step, run.state.variables)
            if start is not None:
                run.state = with_new_parameters(run.state, start, run.optimizer, mesh)
            batch = sharding.put_batch(mesh, epoch_work.add_fields(next(batches)))
            with _compiling(run, first):
                arguments = (run.state, phase.teacher_variables, batch, key)
                shapes = compiled_for if program and start is None else jax.tree.map(jnp.shape, arguments)
                # The next steps are of another kind, or the epoch's batches or parameters of another shape.
                if program is None or run.step == run.frozen_steps or shapes != compiled_for:
                    with phase.outlook.compiling():
                        program, compiled_for = compile_now(_jitted_step(run), *arguments), shapes
                run_step(run, program, arguments, profiled)
            stop = run.guard.stop_requested(run.epoch_ends)
            if config.data.skip_corrupt and (stop or run.epoch_ends):
                run.skipped = run.resumed.skipped + sum_over_processes(sum(batches.skipped.values()))
            progress.advance(_write_terms(run, writer))
            if stop or run.score_due or run.is_due(config.checkpoint.every):
                writer.sync()
                checkpoint(run, wait=stop is not None)
            if stop:
                raise Stopped(f"{stop}: {_saved(run)}; run again to go on.")
            if run.score_due:  # after saving, so that a run that ends meanwhile goes on from here
                with progress.paused():
                    score(run, writer)
    if batches.skipped:
        logging.warning("%s: %d reads of unreadable images skipped", phase.name, sum(batches.skipped.values()))


def run_step(
    run: Training, program: Callable[..., Any], arguments: tuple[Any, ...], profiled: profile.StepProfile
) -> None:
    """Takes one step; returns while the device computes it, once the step before is done."""
    profiled.before(run.step + 1)
    run.state, terms = program(*arguments)
    run.step += 1
    run.pending.append((run.step, terms))
    if len(run.pending) > 1:  # one step runs while the host prepares the next: no further ahead, no idle device
        jax.block_until_ready(run.pending[-2][1]["total"])
    profiled.after(run.step, terms)


def checkpoint(run: Training, wait: bool = False) -> None:
    """Saves the state, with what a run needs that goes on from it.

    Args:
        run: the phase.
        wait: whether to return only when the checkpoint is on disk.
    """
    metadata: dict[str, Any] = {
        "epoch": run.step / run.epoch_steps,
        "phase": run.phase.name,
        "seed": run.config.seed,
        "skipped": run.skipped,
    }
    if run.pending:  # the line that they belong to is written by the run that goes on
        metadata["unwritten"] = _fetch_terms(run)
    run.store.save(run.step, state_.as_tree(run.state), data=metadata, wait=wait)


def score(run: Training, writer: MetricWriter) -> None:
    """Evaluates the state, which is saved; a signal meanwhile ends the process, and the next run scores it."""
    assert run.evaluate is not None
    message = f"{_saved(run)}; run again to go on with its evaluation."
    with run.guard.expendable(message, run.store.wait), cpu.freed_memory_returned():
        scores = dict(run.evaluate(run.state.variables))
    writer.scalars(run.step, scores, epoch=run.step // run.epoch_steps)
    run.store.add_scores(run.step, scores)


def _write_terms(run: Training, writer: MetricWriter) -> dict[str, float] | None:
    """Writes a line of the metrics when it is due; returns the means of the loss terms for the progress line."""
    if not (len(run.pending) >= run.config.train.log_every or run.epoch_ends or run.step == 1):
        return None
    means = loss_terms.means(_fetch_terms(run))
    run.pending.clear()
    rate = float(run.rates[min((run.step - 1) // run.epoch_steps, len(run.rates) - 1)])
    counts = {"skipped_images": run.skipped} if run.config.data.skip_corrupt and run.epoch_ends else {}
    writer.scalars(run.step, {**means, "learning_rate": rate, **counts}, epoch=run.step / run.epoch_steps)
    return {name: mean for name, mean in means.items() if name not in train.NORMS}


def _fetch_terms(run: Training) -> list[tuple[int, dict[str, float]]]:
    return loss_terms.fetch(run.pending, run.phase.name, run.store.latest_step())


def _saved(run: Training) -> str:
    return f"saved the {run.phase.name} after step {run.step} of {run.total}"


def _batch_images(config: ml_collections.ConfigDict) -> int:
    return int(config.data.identities * config.data.images_per_identity)


def _jitted_step(run: Training) -> Any:
    """Returns the training step of the kind that comes next, not yet compiled."""
    phase, mesh = run.phase, run.mesh
    frozen = run.step < run.frozen_steps
    step = train.make_train_step(
        phase.module, run.optimizer, run.config, phase.recipe, phase.teacher, run.epoch_steps, mesh, frozen
    )
    return train.jit_step(step, mesh, run.state, phase.teacher_variables)


def _phase_key(run: Training) -> jax.Array:
    key = train.fold(jax.random.key(run.config.seed), run.phase.name)
    return jax.random.wrap_key_data(sharding.put_replicated(run.mesh, jax.random.key_data(key)))


def _batches(run: Training) -> pipeline.Batches:
    return pipeline.train_batches(
        run.phase.split,
        run.config,
        seed=run.config.seed,
        phase=run.phase.name,
        start_step=run.step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        fields=run.phase.fields,
        pad_to_multiple=math.lcm(run.mesh.size, jax.process_count()),
        enlarge=_fields_resized_on_device(run.phase, run.config),
        with_index=run.phase.recipe.between_epochs is not None,
    )


def _fields_resized_on_device(phase: PhaseSetup, config: ml_collections.ConfigDict) -> list[str]:
    """Returns the photos that the device enlarges in every process: they all run one program."""
    small = pipeline.device_enlarges(phase.split, config, phase.fields)
    return [name for name in phase.fields if not any_process(name not in small)]


def _write_overview(folder: Path, params: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    local = all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in jax.tree.leaves(params))
    overview = parameter_overview.get_parameter_overview(params, include_stats=local)
    (folder / "parameters.txt").write_text(overview + "\n")


def _compiling(run: Training, first: int) -> contextlib.AbstractContextManager[None]:
    """Returns what the first step of a process runs in: it compiles for minutes, and nothing is new before it."""
    if run.step != first:
        return contextlib.nullcontext()
    return run.guard.expendable(f"the {run.phase.name} made no new step after step {first}; run again to go on.")


def _resume_info(restored: Restored | None) -> ResumeInfo:
    if restored is None:
        return ResumeInfo()
    rows = restored.data.get("unwritten", [])
    unwritten = tuple((step, {name: np.float32(value) for name, value in terms.items()}) for step, terms in rows)
    return ResumeInfo(restored.scores is not None, unwritten, restored.data.get("skipped", 0))


def _init_seed(seed: int, phase: str) -> int:
    return 2 * seed + (phase == "teacher")  # teacher and student must not start from the same values
