"""A whole experiment: dataset, teacher phase, student phase, evaluation, results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from deskpro_jax import methods
from deskpro_jax.checkpoints import check as checkpoint_check
from deskpro_jax.checkpoints import selection
from deskpro_jax.checkpoints.selection import Steps
from deskpro_jax.config import check as run_check
from deskpro_jax.data import check as data_check
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.datasets.protocols import Protocol
from deskpro_jax.data.load import dataset, training_labels
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.data.load.decoding import GARMENTS
from deskpro_jax.data.opening import Data, load_data, load_test
from deskpro_jax.errors import MissingInputError
from deskpro_jax.evaluation import check as evaluation_check
from deskpro_jax.evaluation import evaluate, results_files, scoring, sentences
from deskpro_jax.evaluation.evaluate import Result
from deskpro_jax.evaluation.results_table import ResultRow
from deskpro_jax.evaluation.scoring import Splits
from deskpro_jax.losses import check as loss_check
from deskpro_jax.models.contract import Network, PhaseSpec, Recipe, TrainingImages, embedding_streams
from deskpro_jax.runtime import compilation, sharding
from deskpro_jax.runtime.forking import refuse_after_fork
from deskpro_jax.runtime.progress import say
from deskpro_jax.runtime.signals import SignalGuard
from deskpro_jax.runtime.time_left import Outlook
from deskpro_jax.storage.files import check_writable
from deskpro_jax.train import check as train_check
from deskpro_jax.train import initial_weights, plan, teacher
from deskpro_jax.train.loop import run_phase
from deskpro_jax.train.phase import PhaseSetup
from deskpro_jax.workdir import layout, transfer
from deskpro_jax.workdir.networks import load_networks


def run(config: ml_collections.ConfigDict, folder: Path, mode: str = "train", *, write: bool = True) -> list[Result]:
    """Runs an experiment in `folder`, or only its evaluation.

    Args:
        config: the configuration.
        folder: the workdir; everything is written there, except datasets, which go into `data.data_dir`.
        mode: "train" (finished phases are skipped), or "evaluate" for the existing checkpoints.
        write: False only prints the results of an evaluation, so that the workdir may be read-only.

    Returns:
        The results, which are also written to `results.json` and `results.md`, and printed.

    Raises:
        InputError, MissingInputError: a field, a file or the workdir cannot be used.
        RunError: it cannot be computed.
    """
    refuse_after_fork("an experiment cannot run")
    validate(config, mode)
    first = jax.process_index() == 0
    if mode == "train":
        layout.settle_config(folder, config, write=first)
        if first:
            specs = methods.phases(config)
            say(*plan.describe(config, folder, specs, plan.epochs_done(folder, specs)))
    elif not folder.is_dir():
        raise MissingInputError(f"no workdir at {folder}: train first, or correct --workdir.")
    else:
        if write and first:
            check_writable(folder, "it gets the results; --print shows them and writes nothing")
        config = transfer.as_trained(config, folder)
    _use_compilation_cache(config, folder, write)
    mesh = sharding.make_mesh(config)
    guard = SignalGuard()
    with guard if mode == "train" else contextlib.nullcontext():
        with guard.expendable("nothing was trained by this command; run again to go on."):
            data = load_data(config, folder) if mode == "train" else None
            splits = (data.query, data.gallery) if data else load_test(config, folder)
            chosen = scoring.choose_protocols(config, splits)
        scoring.tell_left_out(chosen)
        trained = _train(config, folder, mesh, data, guard) if data else _load_trained(config, folder, mesh)
        networks, variables, steps = trained
        skipped = selection.skipped_images(folder) if config.data.skip_corrupt else {}
        with guard.expendable("everything is trained and saved; run again for the results."):
            results = scoring.score_networks(
                config,
                mesh,
                splits,
                networks,
                variables,
                chosen.protocols,
                reranking=scoring.reranking_of(config),
                skipped=skipped,
                show=first,
                keep=scoring.keeper(config, folder, splits, networks, variables, steps) if write else None,
            )
            baselines = []
            if config.eval.baselines:
                scored, protocol = scoring.readable(splits, skipped), chosen.protocols[0]
                baselines = _score_teacher(config, folder, mesh, scored, protocol, show=first)
                baselines += scoring.baselines(config, mesh, scored, networks, protocol, show=first)
        if first:
            file = results_files.find_results_file(config, folder, splits[0], own=mode == "train")
            published = results, baselines, steps, chosen.left_out, skipped
            streams = embedding_streams(networks)
            rows = [*(result.row() for result in results), *baselines]
            shown = sentences.of_rows(rows, streams, splits, config.eval.missing_face)
            results_files.publish(config, file, splits[0], *published, write=write, sentences=shown)
            print("next:", *sentences.next_commands(folder, config.data, streams), sep="\n  ")
    return results


def _train(
    config: ml_collections.ConfigDict, folder: Path, mesh: Mesh, data: Data, guard: SignalGuard
) -> tuple[list[Network], list[Any], dict[str, Steps]]:
    """Trains the unfinished phases; returns the networks of the embedding, their variables and steps."""
    specs = methods.phases(config)
    initial_weights.warn_of_unused(config, specs)
    for spec in specs:
        if any(term.needs_clothes for term in spec.recipe.losses):
            training_labels.check_clothes(spec.name, data.train)
        if GARMENTS in spec.recipe.fields:
            training_labels.check_garments(spec.name, data.train)
    networks = {spec.name: spec.network(config, data.classes, data.clothes) for spec in specs}
    trained: dict[str, _Trained] = {}
    starts = {}
    # Before the hours of a first phase: weights that a later one cannot start from are refused here.
    for spec in reversed(specs):
        if not plan.is_given(config, spec):
            module = networks[spec.name].module
            starts[spec.name] = initial_weights.begin(spec, module, config, folder / spec.name, data.train)
    work = plan.work_left(config, data, specs, plan.epochs_done(folder, specs))
    for spec in specs:
        network = networks[spec.name]
        if plan.is_given(config, spec):
            variables, steps = teacher.read_given(config, spec, data.train, mesh)
        else:
            frozen = trained.get(spec.recipe.teacher)
            start, outlook = starts[spec.name], Outlook(work.get(spec.name, ()))
            variables, steps = _train_phase(config, folder, mesh, data, guard, spec, network, start, frozen, outlook)
        trained[spec.name] = _Trained(network, variables, steps)
    embeds = [trained[spec.name] for spec in reversed(specs) if spec.embeds]
    steps_of = {name: phase.steps for name, phase in trained.items()}
    return [phase.network for phase in embeds], [phase.variables for phase in embeds], steps_of


class _Trained(NamedTuple):
    network: Network
    variables: Any
    steps: Steps


def _load_trained(
    config: ml_collections.ConfigDict, folder: Path, mesh: Mesh
) -> tuple[list[Network], list[Any], dict[str, Steps]]:
    """Reads the networks of the embedding, whatever number of identities they were trained on."""
    loaded = load_networks(folder, config=config)
    variables = [sharding.put_variables(mesh, values) for values in loaded.variables]
    return list(loaded.networks), variables, loaded.steps


def _score_teacher(
    config: ml_collections.ConfigDict, folder: Path, mesh: Mesh, splits: Splits, protocol: Protocol, *, show: bool
) -> list[ResultRow]:
    """Returns the rows with the workdir's own teacher in the student's place (DeSKPro*); none without one."""
    if config.model.face != "student" or not (folder / "teacher" / "checkpoints").is_dir():
        return []
    loaded = load_networks(folder, config=config, face="teacher")
    variables = [sharding.put_variables(mesh, values) for values in loaded.variables]
    results = scoring.score_networks(config, mesh, splits, loaded.networks, variables, [protocol], show=show)
    known = {stream.name for stream in loaded.streams if not stream.reads_face}  # a row of the results already
    rows = [result.row() for result in results if result.stream not in known]
    return [row._replace(stream=row.stream + scoring.TEACHER) for row in rows]


def validate(config: ml_collections.ConfigDict, mode: str = "train") -> None:
    """Checks every field of a configuration, and what fields ask for together, before anything is built or trained.

    Args:
        config: the configuration.
        mode: "train" also checks what only training needs; "evaluate" does not.

    Raises:
        InputError: a field has a value that cannot be used; the message names it.
    """
    for room in (run_check, data_check, methods, loss_check, checkpoint_check, evaluation_check, train_check):
        room.check(config)
    if mode == "train":
        train_check.check_training(config)


def _use_compilation_cache(config: ml_collections.ConfigDict, folder: Path, write: bool) -> None:
    if not write and not config.compilation_cache:
        compilation.use_cache_of(folder)
    elif config.compilation_cache != "none":
        compilation.use_persistent_cache(Path(config.compilation_cache or folder / compilation.CACHE_FOLDER))


def _train_phase(
    config: ml_collections.ConfigDict,
    folder: Path,
    mesh: Mesh,
    data: Data,
    guard: SignalGuard,
    spec: PhaseSpec,
    network: Network,
    start: Callable[[Any], Any] | None,
    frozen: _Trained | None,
    outlook: Outlook,
) -> tuple[Any, Steps]:
    """Trains one phase to its end; `frozen` is the teacher that its losses compare with."""
    config = plan.config_of(config, spec)
    images = [*network.images, *spec.recipe.fields, *(frozen.network.images if frozen else ())]
    phase = PhaseSetup(
        spec.name,
        network.module,
        spec.recipe,
        spec.epochs,
        spec.schedule_epochs,
        tuple(dict.fromkeys(images)),
        data.train,
        frozen.network.module if frozen else None,
        frozen.variables if frozen else None,
        start,
        _training_images(config, mesh, data.train, network) if spec.recipe.between_epochs else None,
        outlook,
    )
    _warn_if_no_masks(spec.recipe, data.train)
    return run_phase(phase, config, mesh, folder / spec.name, guard, _scorer(config, mesh, data, [network]))


def _training_images(
    config: ml_collections.ConfigDict, mesh: Mesh, split: ReIDSplit, network: Network
) -> Callable[[Any], TrainingImages]:
    """Returns the function from variables to the training images, for work between epochs."""
    images = dataset.usable(split, config.data.require_face, config.data.require_mask)
    identity = dataset.class_indices(images.identity, dataset.train_classes(split))
    embed = evaluate.make_embed([network], False, mesh)
    return lambda variables: TrainingImages(
        identity, lambda: evaluate.embed_split(embed, [variables], images, config, mesh, network.images)
    )


def _warn_if_no_masks(recipe: Recipe, split: ReIDSplit) -> None:
    if any(term.name == "attention" for term in recipe.losses) and not split.has_mask.any():
        logging.warning(
            "L_att is off: no image of %s/%s has a mask, so nothing teaches attention where clothing is",
            split.name,
            split.split,
        )


def _scorer(config: ml_collections.ConfigDict, mesh: Mesh, data: Data, networks: list[Network]) -> Any:
    """Returns the evaluation that runs during training: on held-out identities, otherwise on query and gallery."""
    if data.validation:
        protocol = scoring.held_out_protocol(data.validation, find_dataset(config.data.name).by_tracklet)
        return scoring.make_scorer(config, mesh, data.validation, networks, (protocol,))
    splits = data.query, data.gallery
    return scoring.make_scorer(config, mesh, splits, networks, scoring.choose_protocols(config, splits).protocols)
