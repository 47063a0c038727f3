"""The plan of a training run: its stages, what of them is done already, and the work that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections

from deskpro_jax.checkpoints.metadata import latest_data
from deskpro_jax.data.build import builder
from deskpro_jax.data.load.pipeline import steps_per_epoch
from deskpro_jax.data.opening import Data, data_folder
from deskpro_jax.models.contract import PhaseSpec, image_sizes
from deskpro_jax.runtime.time_left import Work
from deskpro_jax.workdir.layout import RESULTS_FILE

_TRAINED, _FROZEN = 3, 1  # passes through a network: forward, and backward to activations and to parameters


def describe(
    config: ml_collections.ConfigDict, folder: Path, specs: Sequence[PhaseSpec], done: Mapping[str, float]
) -> list[str]:
    """Returns the stages of a run in their order, a line each, for people.

    Args:
        config: the configuration.
        folder: the workdir.
        specs: the phases.
        done: phase -> epochs that are done.
    """
    stages = [_dataset(config, data_folder(config, folder))]
    stages += [_phase(spec, config, done.get(spec.name, 0.0)) for spec in specs]
    stages.append(f"evaluate; the results go into {folder / RESULTS_FILE}")
    return [
        f"{folder}: {len(stages)} stages; how long they take is printed once the first steps are measured",
        *(f"  {i}. {stage}" for i, stage in enumerate(stages, 1)),
    ]


def _dataset(config: ml_collections.ConfigDict, where: Path) -> str:
    name = config.data.name
    if builder.is_built(name, where):
        return f"dataset {name}: done, in {where}"
    if config.data.raw_dir:
        return f"build the dataset {name} from {config.data.raw_dir} into {where}"
    return f"draw the dataset {name} into {where}"


def _phase(spec: PhaseSpec, config: ml_collections.ConfigDict, done: float) -> str:
    if is_given(config, spec):
        return f"{spec.name}: given by teacher.checkpoint, {config.teacher.checkpoint}"
    epochs = f"{spec.epochs} epoch{'s' * (spec.epochs != 1)}"
    if done >= spec.epochs and done:
        return f"{spec.name}: done, {epochs}"
    return f"train the {spec.name}, {epochs}" + (f", {done:.3g} of them done" if done else "")


def is_given(config: ml_collections.ConfigDict, spec: PhaseSpec) -> bool:
    """Returns whether a phase is not trained, because its network is read from where `teacher.checkpoint` says."""
    return spec.name == "teacher" and bool(config.teacher.checkpoint)


def epochs_done(folder: Path, specs: Sequence[PhaseSpec]) -> dict[str, float]:
    """Returns the epochs that each phase of a workdir has behind it, fractions included."""
    return {spec.name: float(latest_data(folder / spec.name / "checkpoints").get("epoch", 0.0)) for spec in specs}


def config_of(config: ml_collections.ConfigDict, spec: PhaseSpec) -> ml_collections.ConfigDict:
    """Returns the configuration that a phase trains with: images that it has no use for are left out."""
    if "face" in spec.recipe.requires:
        config = config.copy_and_resolve_references()
        config.data.require_face = True
    return config


def work_left(
    config: ml_collections.ConfigDict, data: Data, specs: Sequence[PhaseSpec], done: Mapping[str, float]
) -> dict[str, tuple[Work, ...]]:
    """Returns for each phase that is not finished its work and all that follows, evaluation last.

    A network's work is the pixels that it reads, times the passes through it; that of compiling it, the passes.

    Args:
        config: the configuration.
        data: the splits.
        specs: the phases.
        done: phase -> epochs that are done.
    """
    sizes = image_sizes(config)
    pixels = {spec.name: sum(sizes[s.image][0] * sizes[s.image][1] for s in spec.streams) for spec in specs}
    streams = {spec.name: len(spec.streams) for spec in specs}
    batch, mirrored = config.data.identities * config.data.images_per_identity, 1 + bool(config.eval.flip)
    scored = mirrored * sum(len(split) for split in data.validation or (data.query, data.gallery))
    work = []
    for spec in specs:
        left = spec.epochs - done.get(spec.name, 0.0)
        if is_given(config, spec) or left <= 0:
            continue
        own, frozen = spec.name, spec.recipe.teacher
        every, last = config.eval.every, spec.epochs
        evaluations = sum(
            epoch == last or (every > 0 and epoch % every == 0) for epoch in range(int(last - left) + 1, last + 1)
        )
        work.append(
            Work(
                own,
                batch * (_TRAINED * pixels[own] + _FROZEN * pixels.get(frozen, 0)),
                _TRAINED * streams[own] + _FROZEN * streams.get(frozen, 0),
                round(left * steps_per_epoch(data.train, config_of(config, spec))),
                evaluations * scored * pixels[own],
                streams[own],
            )
        )
    embedded = [spec.name for spec in specs if spec.embeds]
    tested = mirrored * (len(data.query) + len(data.gallery)) * (1 + bool(config.eval.baselines))
    work.append(
        Work(
            "evaluation",
            step=0.0,
            program=sum(streams[name] for name in embedded),
            steps=0,
            beside=tested * sum(pixels[name] for name in embedded),
        )
    )
    return {part.name: tuple(work[i:]) for i, part in enumerate(work[:-1])}
