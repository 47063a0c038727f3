"""A whole experiment: dataset, teacher phase, student phase, evaluation, results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from deskpro_jax.checkpoints import check as checkpoint_check
from deskpro_jax.checkpoints import selection
from deskpro_jax.checkpoints.selection import Steps, read_variables, trained_classes
from deskpro_jax.config import check as run_check
from deskpro_jax.data import check as data_check
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.data.opening import Data, load_data, load_test
from deskpro_jax.errors import MissingInputError
from deskpro_jax.evaluation import check as evaluation_check
from deskpro_jax.evaluation import results_files, scoring
from deskpro_jax.evaluation.evaluate import Network, Result
from deskpro_jax.evaluation.protocols import Protocol
from deskpro_jax.losses import check as loss_check
from deskpro_jax.methods.deskpro import DeSKPro, student_model, teacher_model
from deskpro_jax.models import check as model_check
from deskpro_jax.runtime import compilation, sharding
from deskpro_jax.runtime.signals import SignalGuard
from deskpro_jax.train import check as train_check
from deskpro_jax.train import initial_weights, teacher
from deskpro_jax.train.loop import run_phase
from deskpro_jax.train.phase import Phase
from deskpro_jax.train.teacher import needs_teacher
from deskpro_jax.workdir import layout, transfer

__all__ = ["Data", "load_data", "needs_teacher", "read_variables", "run", "validate"]


def run(config: ml_collections.ConfigDict, folder: Path, mode: str = "train") -> list[Result]:
    """Runs an experiment in `folder`, or only its evaluation.

    Args:
        config: the configuration.
        folder: the workdir; everything is written there and nowhere else, the datasets of `data.data_dir` apart.
        mode: "train" (phases that are done are skipped), or "evaluate" for the checkpoints that are there.

    Returns:
        The results, which are also in `results.json`, in `results.md` and on the terminal.
    """
    validate(config, mode)
    first = jax.process_index() == 0
    if mode == "train":
        layout.settle_config(folder, config, write=first)
    elif not folder.is_dir():
        raise MissingInputError(f"no workdir at {folder}: train first, or correct --workdir.")
    else:
        config = transfer.as_trained(config, folder)
    _use_compilation_cache(config, folder)
    mesh = sharding.make_mesh(config)
    guard = SignalGuard()
    with guard if mode == "train" else contextlib.nullcontext():
        with guard.expendable("nothing was trained by this command; run again to go on."):
            data = load_data(config, folder) if mode == "train" else None
            splits = (data.query, data.gallery) if data else load_test(config, folder)
            chosen = scoring.choose_protocols(config, splits)
        scoring.tell_left_out(chosen)
        found = _train(config, folder, mesh, data, guard) if data else _trained(config, folder, mesh)
        networks, variables, steps = found
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
                keep=scoring.keeper(config, folder, splits, networks, variables, steps),
            )
            rest = scoring.readable(splits, skipped)
            wanted = chosen.protocols[0]
            others = []
            if config.eval.baselines:
                others = scoring.baselines(config, mesh, rest, networks, wanted, show=first)
        if first:
            file = results_files.find_results_file(config, folder, splits[0], own=mode == "train")
            results_files.publish(config, file, splits[0], results, others, steps, chosen.left_out, skipped)
    return results


def _train(
    config: ml_collections.ConfigDict, folder: Path, mesh: Mesh, data: Data, guard: SignalGuard
) -> tuple[list[Network], list[Any], dict[str, Steps]]:
    """Trains the phases that are not done yet; returns the networks of the embedding, their variables and steps."""
    student = student_model(config.model, data.classes)
    networks: list[Network] = []
    variables: list[Any] = []
    steps: dict[str, Steps] = {}
    teacher_variables = None
    # Before the hours of the teacher phase: weights that the student cannot start from are refused here.
    begin = initial_weights.begin("student", student, config, folder / "student", data.train)
    if needs_teacher(config):
        teacher_variables, steps["teacher"] = _teacher(config, folder, mesh, data, guard)
    if student.body or student.face:
        values, steps["student"] = _student(config, folder, mesh, data, guard, teacher_variables, begin)
        networks.append(Network(student, "face"))
        variables.append(values)
    if config.model.face == "teacher":
        networks.append(Network(teacher_model(config.model, data.classes), "restored_face"))
        variables.append(teacher_variables)
    return networks, variables, steps


def _trained(
    config: ml_collections.ConfigDict, folder: Path, mesh: Mesh
) -> tuple[list[Network], list[Any], dict[str, Steps]]:
    """Reads the networks of the embedding, whatever number of identities they were trained on."""
    networks, variables = [], []
    steps: dict[str, Steps] = {}
    if config.model.body or config.model.face == "student":
        place = folder / "student" / "checkpoints"
        module = student_model(config.model, trained_classes(place) or 1)
        values, steps["student"] = read_variables(place, module, mesh, config.eval.report)
        networks.append(Network(module, "face"))
        variables.append(values)
    if config.model.face == "teacher":
        module, values, steps["teacher"] = teacher.read(config, folder, mesh)
        networks.append(Network(module, "restored_face"))
        variables.append(values)
    return networks, variables, steps


def validate(config: ml_collections.ConfigDict, mode: str = "train") -> None:
    """Checks every field of a configuration, and what fields ask for together, before anything is built or trained.

    Args:
        config: the configuration.
        mode: "train" also checks what only training needs; "evaluate" does not.

    Raises:
        InputError: a field has a value that cannot be used; the message names it.
    """
    for room in (run_check, data_check, model_check, loss_check, checkpoint_check, evaluation_check, train_check):
        room.check(config)
    student_model(config.model, 1)  # whether any stream is left
    if mode == "train":
        train_check.check_training(config)


def _use_compilation_cache(config: ml_collections.ConfigDict, folder: Path) -> None:
    if config.compilation_cache != "none":
        compilation.use_persistent_cache(Path(config.compilation_cache or folder / compilation.CACHE_FOLDER))


def _teacher(
    config: ml_collections.ConfigDict, folder: Path, mesh: Mesh, data: Data, guard: SignalGuard
) -> tuple[Any, Steps]:
    module = teacher_model(config.model, data.classes)
    if config.teacher.checkpoint:
        return teacher.read_given(config, module, data.train, mesh)
    with config.unlocked():
        faces = ml_collections.ConfigDict(config.to_dict())
        faces.data.require_face = True  # an image without a face has nothing to teach
    begin = initial_weights.begin("teacher", module, config, folder / "teacher", data.train)
    phase = Phase("teacher", module, config.teacher.epochs, ("restored_face",), data.train, pretrained=begin)
    scorer = _scorer(faces, mesh, data, [Network(module, "restored_face")])
    return run_phase(phase, faces, mesh, folder / "teacher", guard, scorer)


def _student(
    config: ml_collections.ConfigDict,
    folder: Path,
    mesh: Mesh,
    data: Data,
    guard: SignalGuard,
    teacher_variables: Any,
    begin: Callable[[Any], Any] | None,
) -> tuple[Any, Steps]:
    module = student_model(config.model, data.classes)
    distil = module.face and config.loss.alpha > 0
    fields = ["body", "cloth_mask"] if module.body else []
    fields += ["face"] if module.face else []
    fields += ["restored_face"] if distil else []
    phase = Phase(
        "student",
        module,
        config.train.epochs,
        tuple(fields),
        data.train,
        teacher_model(config.model, data.classes) if distil else None,
        teacher_variables if distil else None,
        begin,
    )
    _say_without_masks(config, module, data.train)
    scorer = _scorer(config, mesh, data, [Network(module, "face")])
    return run_phase(phase, config, mesh, folder / "student", guard, scorer)


def _say_without_masks(config: ml_collections.ConfigDict, module: DeSKPro, split: ReIDSplit) -> None:
    if module.body and config.model.attention != "none" and config.loss.attention_weight and not split.has_mask.any():
        logging.warning(
            "L_att is off: no image of %s/%s has a mask, so nothing teaches attention where clothing is",
            split.name,
            split.split,
        )


def _scorer(config: ml_collections.ConfigDict, mesh: Mesh, data: Data, networks: list[Network]) -> Any:
    """Returns the evaluation that runs during training: on the identities held out, or else on query and gallery."""
    if data.validation:
        wanted: tuple[Protocol, ...] = (scoring.held_out_protocol(data.validation),)
        return scoring.make_scorer(config, mesh, data.validation, networks, wanted)
    splits = data.query, data.gallery
    return scoring.make_scorer(config, mesh, splits, networks, scoring.choose_protocols(config, splits).protocols)
