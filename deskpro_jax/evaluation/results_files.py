"""Publishes results: prints the table, writes results.json and results.md into the workdir."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import rich.console

import deskpro_jax
from deskpro_jax.checkpoints.selection import Steps
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.evaluation.evaluate import Result
from deskpro_jax.evaluation.protocols import RERANKED, ProtocolResult
from deskpro_jax.evaluation.ranking import RANKS
from deskpro_jax.evaluation.results_table import ResultRow, results_markdown, results_table
from deskpro_jax.storage.files import write_json, write_text
from deskpro_jax.workdir import layout

_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "numpy", "pillow")


class ResultsFile(NamedTuple):
    """The JSON file of results, and the dataset that the workdir's networks were trained on (None: not here)."""

    path: Path
    trained_on: str | None


def find_results_file(config: ml_collections.ConfigDict, folder: Path, query: ReIDSplit, *, own: bool) -> ResultsFile:
    """Returns the file that results belong in.

    Args:
        config: the configuration.
        folder: the workdir.
        query: the query split that was scored.
        own: whether the networks were trained just now, on this dataset; otherwise the workdir's files say so.
    """
    if own:
        return ResultsFile(folder / layout.RESULTS_FILE, config.data.name)
    return ResultsFile(*layout.results_path(folder, config.data.name, query.metadata.get("checksums", {})))


def publish(
    config: ml_collections.ConfigDict,
    file: ResultsFile,
    query: ReIDSplit,
    results: Sequence[Result],
    baselines: Sequence[ResultRow],
    steps: Mapping[str, Steps],
    left_out: Mapping[str, str],
    skipped: Mapping[str, Any] | None = None,
    *,
    sentences: Sequence[str] = (),
    write: bool = True,
) -> None:
    """Prints the results and writes them into the workdir, as JSON and as Markdown.

    Args:
        config: the configuration.
        file: the JSON file; the Markdown goes beside it.
        query: the query split, for what its dataset says about itself.
        results: of the networks.
        baselines: rows of the baselines.
        steps: step of each phase's checkpoint.
        left_out: protocols that could not be scored -> why.
        skipped: unreadable images, of `score_networks` and by training phase.
        sentences: what the rows show, of `sentences.of_rows`.
        write: False only prints them.
    """
    rows = [*(result.row() for result in results), *baselines]
    title = f"{config.data.name}, checkpoint: {config.eval.report}"
    if file.path.name != layout.RESULTS_FILE:
        title += f", networks trained on {file.trained_on or 'another dataset'}"
    notes = {r.result.protocol.name: _explained(r.result) for r in results}
    notes |= {name: f"left out, {reason.removeprefix(f'protocol {name!r}: ')}" for name, reason in left_out.items()}
    console = rich.console.Console()
    table = results_table(rows, title)
    # A log file has no width, and a cut table is of no use on a terminal either.
    console.width = max(console.width, console.measure(table, options=console.options.update(max_width=400)).maximum)
    console.print(table)
    lines = [*(f"{name}: {text}" for name, text in notes.items()), *sentences]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not write:
        return
    record = {
        "dataset": config.data.name,
        "dataset_version": query.metadata.get("version", "1.0.0"),
        "trained_on": file.trained_on,
        "seed": config.seed,
        "checkpoint": {"report": config.eval.report, **steps},
        "results": [{"stream": r.stream, **r.result.summary()} for r in results],
        "baselines": [row._asdict() | {"deviations": dict(row.deviations)} for row in baselines],
        "left_out": dict(left_out),
        **({"skipped": skipped} if skipped and any(skipped.values()) else {}),
        "checksums": query.metadata.get("checksums", {}),
        "versions": {
            "deskpro_jax": deskpro_jax.__version__,
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _VERSIONED},
        },
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": json.loads(config.to_json_best_effort()),
    }
    write_json(file.path, record)
    listed = "".join(f"- {line}\n" for line in lines)
    write_text(file.path.with_suffix(".md"), f"{title}\n\n{results_markdown(rows)}\n{listed}")


def _explained(result: ProtocolResult) -> str:
    """Returns the description of a protocol, what re-ranking differs in, and what a small gallery does not show."""
    text = result.protocol.description
    if result.reranking is not None:
        text = f"{result.protocol.name.removesuffix(RERANKED)}, {result.reranking.describe()}"
        images = result.scores[0].queries + result.gallery
        if images <= result.reranking.k1 + 1:
            text += f" (all {images} images are neighbours of each other)"
    if trivial := [f"R-{k}" for k in RANKS if k >= result.gallery]:
        few = f"{result.gallery} image{'s' * (result.gallery != 1)}"
        text += f"; with a gallery of {few} {', '.join(trivial)} are 100 % whatever comes first"
    return text
