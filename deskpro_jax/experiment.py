"""A whole experiment: dataset, teacher phase, student phase, evaluation, results."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_collections
import rich.console
from absl import logging
from jax.sharding import Mesh

import deskpro_jax
from deskpro_jax import evaluate, protocols, sharding, start, teacher, workdir
from deskpro_jax.data import builder, dataset
from deskpro_jax.data.dataset import ReIDSplit
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluate import Network, Result
from deskpro_jax.loop import Phase, run_phase
from deskpro_jax.models.deskpro import init_variables, student_model, teacher_model
from deskpro_jax.preemption import SignalGuard
from deskpro_jax.processes import from_first
from deskpro_jax.selection import Steps, check_report, read_variables
from deskpro_jax.tables import ResultRow, results_markdown, results_table
from deskpro_jax.teacher import needs_teacher

__all__ = ["Data", "load_data", "needs_teacher", "read_variables", "run"]

_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "numpy", "pillow")


@dataclass(frozen=True)
class Data:
    """The splits of a run; `validation` is query and gallery of the identities held out of train."""

    train: ReIDSplit
    query: ReIDSplit
    gallery: ReIDSplit
    validation: tuple[ReIDSplit, ReIDSplit] | None
    classes: int


def run(config: ml_collections.ConfigDict, folder: Path, mode: str = "train") -> list[Result]:
    """Runs an experiment in `folder`, or only its evaluation.

    Args:
        config: the configuration.
        folder: the workdir; everything is written there and nowhere else, the datasets of `data.data_dir` apart.
        mode: "train" (phases that are done are skipped), or "evaluate" for the checkpoints that are there.

    Returns:
        The results, which are also in `results.json`, in `results.md` and on the terminal.
    """
    _check(config)
    first = jax.process_index() == 0
    if mode == "train":
        teacher.check(config)
        workdir.settle_config(folder, config, write=first)
    elif not folder.is_dir():
        raise MissingInputError(f"no workdir at {folder}: train first, or correct --workdir.")
    else:
        workdir.check_network(folder, config)
    _use_compilation_cache(config, folder)
    mesh = sharding.make_mesh(config)
    data = load_data(config, folder)
    student = student_model(config.model, data.classes)
    # Before the hours of the teacher phase: weights that the student cannot start from are refused here.
    first_student = start.begin("student", student, config, folder / "student", data.train) if mode == "train" else None
    with SignalGuard() as guard:
        steps: dict[str, Steps] = {}
        teacher_variables = None
        if config.model.face == "teacher" or (mode == "train" and needs_teacher(config)):
            teacher_variables, steps["teacher"] = _teacher(config, folder, mode, mesh, data, guard)
        networks = _networks(config, data.classes)
        variables = []
        if student.body or student.face:
            values, steps["student"] = _student(
                config, folder, mode, mesh, data, guard, teacher_variables, first_student
            )
            variables.append(values)
        if config.model.face == "teacher":
            variables.append(teacher_variables)
    results = _score(config, mesh, data, networks, variables)
    rows = [result.row() for result in results]
    if config.eval.baselines:
        rows += _baselines(config, mesh, data, networks)
    if first:
        _publish(config, folder, results, rows, steps)
    return results


def _check(config: ml_collections.ConfigDict) -> None:
    check_report(config.eval.report)
    if config.eval.report == "validation" and config.data.validation_identities < 1:
        raise InputError(
            "eval.report is 'validation', but data.validation_identities is "
            f"{config.data.validation_identities}: set it to the number of identities to hold out."
        )
    if not 0.0 <= config.loss.alpha <= 1.0:
        raise InputError(f"loss.alpha is {config.loss.alpha}; expected a weight between 0 and 1.")


def _use_compilation_cache(config: ml_collections.ConfigDict, folder: Path) -> None:
    if config.compilation_cache == "none" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    jax.config.update("jax_compilation_cache_dir", config.compilation_cache or str(folder.absolute() / "xla_cache"))


def load_data(config: ml_collections.ConfigDict, folder: Path) -> Data:
    """Builds the dataset unless it is there, and opens its splits."""
    d = config.data
    default = folder / "data" if d.name.startswith("synthetic") else Path("~/tensorflow_datasets")
    where = Path(d.data_dir or default).expanduser()

    def build() -> str:
        if not builder.is_built(d.name, where):
            logging.info("building %s in %s", d.name, where)
        return str(builder.build(d.name, where, d.raw_dir or None, d.build_seed, workers=os.cpu_count() or 0))

    from_first(build)  # one process builds, the others wait for it
    train, query, gallery = (dataset.load(d.name, where, split) for split in ("train", "query", "gallery"))
    validation = None
    if d.validation_identities:
        train, *held = dataset.hold_out(train, d.validation_identities, config.seed)
        validation = (held[0], held[1])
    # Identities without an image that is used are no classes, as in the released code.
    train = dataset.usable(train, d.require_face, d.require_mask)
    return Data(train, query, gallery, validation, len(dataset.train_classes(train)))


def _networks(config: ml_collections.ConfigDict, classes: int) -> list[Network]:
    """Returns the networks that give the embedding."""
    student = student_model(config.model, classes)
    networks = [Network(student, "face")] if student.body or student.face else []
    if config.model.face == "teacher":
        networks.append(Network(teacher_model(config.model, classes), "restored_face"))
    return networks


def _teacher(
    config: ml_collections.ConfigDict, folder: Path, mode: str, mesh: Mesh, data: Data, guard: SignalGuard
) -> tuple[Any, Steps]:
    module = teacher_model(config.model, data.classes)
    if config.teacher.checkpoint:
        return teacher.read_given(config, module, data.train, mesh)
    if mode == "evaluate":
        return read_variables(folder / "teacher" / "checkpoints", module, mesh, config.eval.report)
    with config.unlocked():
        faces = ml_collections.ConfigDict(config.to_dict())
        faces.data.require_face = True  # an image without a face has nothing to teach
    first = start.begin("teacher", module, config, folder / "teacher", data.train)
    phase = Phase("teacher", module, config.teacher.epochs, ("restored_face",), data.train, start=first)
    scorer = _scorer(faces, mesh, data, [Network(module, "restored_face")])
    return run_phase(phase, faces, mesh, folder / "teacher", guard, scorer)


def _student(
    config: ml_collections.ConfigDict,
    folder: Path,
    mode: str,
    mesh: Mesh,
    data: Data,
    guard: SignalGuard,
    teacher_variables: Any,
    first: Callable[[Any], Any] | None,
) -> tuple[Any, Steps]:
    module = student_model(config.model, data.classes)
    if mode == "evaluate":
        return read_variables(folder / "student" / "checkpoints", module, mesh, config.eval.report)
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
        first,
    )
    scorer = _scorer(config, mesh, data, [Network(module, "face")])
    return run_phase(phase, config, mesh, folder / "student", guard, scorer)


def _scorer(config: ml_collections.ConfigDict, mesh: Mesh, data: Data, networks: Sequence[Network]) -> Any:
    """Returns the evaluation that runs during training: variables -> scores by name, the last stream's mAP as `mAP`."""
    embed = evaluate.make_embed(networks, config.eval.flip, mesh)
    splits = data.validation or (data.query, data.gallery)
    if data.validation:
        wanted: tuple[protocols.Protocol, ...] = (evaluate.VALIDATION,)
    else:
        wanted = protocols.find_protocols(config.data.name, config.eval.protocols)

    def score(variables: Any) -> dict[str, float]:
        results = _results(config, mesh, splits, networks, [variables], wanted, embed)
        scores = {f"{r.result.protocol.name}/{r.stream}/{k}": v for r in results for k, v in r.result.figures.items()}
        first = {r.stream: r.result.figures["mAP"] for r in reversed(results)}  # under the first protocol
        main = evaluate.BOTH if evaluate.BOTH in first else next(iter(first))
        return scores | {f"{name}_mAP": value for name, value in first.items()} | {"mAP": first[main]}

    return score


def _results(
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    splits: tuple[ReIDSplit, ReIDSplit],
    networks: Sequence[Network],
    variables: Sequence[Any],
    wanted: Sequence[protocols.Protocol],
    embed: Any = None,
) -> list[Result]:
    embed = embed or evaluate.make_embed(networks, config.eval.flip, mesh)
    fields = tuple(dict.fromkeys(field for net in networks for field in net.fields))
    found = [evaluate.embed_split(embed, variables, split, config, mesh, fields) for split in splits]
    present = evaluate.streams(networks)
    results = evaluate.score_embeddings(
        found[0], found[1], splits, present, wanted, config.seed, config.eval.missing_face
    )
    if not results:
        raise InputError(f"none of the protocols {', '.join(p.name for p in wanted)} can be scored on these labels.")
    return results


def _score(
    config: ml_collections.ConfigDict, mesh: Mesh, data: Data, networks: Sequence[Network], variables: Sequence[Any]
) -> list[Result]:
    wanted = protocols.find_protocols(config.data.name, config.eval.protocols)
    return _results(config, mesh, (data.query, data.gallery), networks, variables, wanted)


def _baselines(
    config: ml_collections.ConfigDict, mesh: Mesh, data: Data, networks: Sequence[Network]
) -> list[ResultRow]:
    """Returns what raw pixels and the untrained networks reach under the first protocol."""
    protocol = protocols.find_protocols(config.data.name, config.eval.protocols)[0]
    pixels = evaluate.score_raw_pixels((data.query, data.gallery), config, protocol)
    rows = [
        ResultRow(protocol.name, "raw pixels", pixels.map, pixels.ranks, pixels.counted, sum(pixels.dropped.values()))
    ]
    untrained = [sharding.put_replicated(mesh, init_variables(net.module, config.seed)) for net in networks]
    for result in _results(config, mesh, (data.query, data.gallery), networks, untrained, [protocol]):
        rows.append(result.row()._replace(stream=f"{result.stream}, untrained"))
    return rows


def _publish(
    config: ml_collections.ConfigDict,
    folder: Path,
    results: Sequence[Result],
    rows: Sequence[ResultRow],
    steps: dict[str, Steps],
) -> None:
    title = f"{config.data.name}, checkpoint: {config.eval.report}"
    console = rich.console.Console()
    console.width = max(console.width, 100)  # a log file has no width: do not cut the table for it
    console.print(results_table(rows, title))
    record = {
        "dataset": config.data.name,
        "seed": config.seed,
        "checkpoint": {"report": config.eval.report, **steps},
        "results": [{"stream": r.stream, **r.result.summary()} for r in results],
        "baselines": [row._asdict() for row in rows[len(results) :]],
        "versions": {
            "deskpro_jax": deskpro_jax.__version__,
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _VERSIONED},
        },
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": json.loads(config.to_json_best_effort()),
    }
    workdir.write_json(folder / workdir.RESULTS_FILE, record)
    (folder / "results.md").write_text(results_markdown(rows), encoding="utf-8")
