"""Gathers what the page shows of a workdir; what is missing is said in its place."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import deskpro_jax
from deskpro_jax.errors import InputError, MissingInputError, RunError
from deskpro_jax.evaluation.ranking import Scores
from deskpro_jax.evaluation.results_table import map_name
from deskpro_jax.report import configuration, curves, sections, tables
from deskpro_jax.report.charts import draw_lines
from deskpro_jax.report.opened import Opened, embed, open_data, open_networks, read_kept
from deskpro_jax.report.pictures import Pictures
from deskpro_jax.report.record import NOT_PART, Record, phase_names, phase_state, read_record, short_name
from deskpro_jax.report.sections import Run, Shown
from deskpro_jax.report.view import View, make_view
from deskpro_jax.train.metrics_file import METRICS_FILE
from deskpro_jax.workdir import layout

_SECTIONS = ("ranked", "attention", "similarities", "confusions")
_EQUAL = 5e-4  # of shares: further apart than rounding can be


@dataclass(frozen=True)
class Options:
    """What the command was asked for; None is as the run says.

    Attributes:
        images: pictures on the page, at most.
        ranks: entries of a ranked list, at most.
        stream: whose rankings are shown, "face", "body" or "both".
        protocol: under which.
        dataset: name of the dataset that is looked at.
        data_dir: where datasets are kept.
        compare: a second workdir, whose attention maps are shown beside.
        quick: leaves out all that needs the networks.
    """

    images: int
    ranks: int
    stream: str | None = None
    protocol: str | None = None
    dataset: str | None = None
    data_dir: str | None = None
    compare: Path | None = None
    quick: bool = False

    @property
    def asked(self) -> bool:
        """Whether something was asked for that, where it cannot be had, is an error and no gap in the page."""
        return any(value is not None for value in (self.stream, self.protocol, self.dataset, self.data_dir))


def gather(folder: Path, options: Options) -> dict[str, Any]:
    """Gathers what the page's template needs.

    Args:
        folder: the workdir.
        options: what was asked for.

    Raises:
        MissingInputError: the folder does not exist.
        InputError: it is not a workdir, or something was asked for that its networks or dataset do not have.
    """
    record = read_record(folder)
    other = None if options.compare is None else read_record(options.compare)
    pictures = Pictures()
    if options.quick:
        looked = {name: Shown(missing="Left out: the page was asked for without it (--quick).") for name in _SECTIONS}
        facts: list[tuple[str, str]] = []
    else:
        looked, facts = _look(record, other, options, pictures)
    phases = [_phase(record, phase) for phase in phase_names(record)]
    return {
        "name": short_name(folder),
        "facts": [*_facts(record, phases), *facts],
        "problems": list(record.problems),
        "results": [
            tables.read_results(file, found, tables.checkpoint_of(found)) for file, found in record.results.items()
        ],
        "phases": phases,
        **looked,
        **_made_with(record),
        "images": pictures.count,
        "version": deskpro_jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="minutes").removesuffix("+00:00"),
    }


def _facts(record: Record, phases: list[dict[str, Any]]) -> list[tuple[str, str]]:
    results = record.own_results or {}
    name = results.get("dataset") or record.field("data.name")
    seed = results.get("seed", record.field("seed"))
    facts = [("dataset", str(name or "none named"))]
    rows = tables.entries(results)
    first = [entry for entry in rows if entry.get("protocol") == rows[0].get("protocol")]
    if first:
        main = first[-1]  # both streams together come last
        where = f"{main.get('protocol')}, {main.get('stream')}"
        facts += [(f"{tables.map_name_of(main)} ({where})", f"{tables.percent(main.get('mAP'))} %")]
        facts += [(f"R-1 ({where})", f"{tables.percent(main.get('R-1'))} %")]
    if record.conversion is not None:
        facts.append(("converted from", str(record.conversion.get("source", "a weights file"))))
    facts += [(phase["name"], phase["state"]) for phase in phases]
    return [*facts, ("seed", "unknown" if seed is None else str(seed))]


def _phase(record: Record, phase: str) -> dict[str, Any]:
    metrics = curves.read_metrics(record.folder / phase / METRICS_FILE)
    found: dict[str, Any] = {
        "name": phase,
        "state": phase_state(record, phase, metrics.last_epoch if metrics else None),
        "groups": [],
        "notes": [],
        "start": record.starts.get(phase, {}),
    }
    if metrics is None:
        if found["state"] != NOT_PART:
            found["notes"].append(f"No curves: there is no {phase}/{METRICS_FILE}.")
        return found
    if metrics.broken:
        found["notes"].append(f"{metrics.broken} lines of {phase}/{METRICS_FILE} cannot be read and are left out.")
    charts = curves.phase_charts(metrics)
    for title, group in zip(("Loss terms", "Scores", "More scores", "Learning rate", "Norms"), charts, strict=True):
        drawn = [
            {"chart": chart, "svg": draw_lines(chart, f"{phase}-{title.split()[0].lower()}-{number}")}
            for number, chart in enumerate(group)
        ]
        if drawn:
            found["groups"].append({"title": title, "charts": drawn})
        elif title in ("Loss terms", "Scores"):
            found["notes"].append(f"{title}: none in {phase}/{METRICS_FILE} yet.")
    return found


def _made_with(record: Record) -> dict[str, Any]:
    results = record.own_results
    config = record.config if record.config is not None else (results or {}).get("config")
    source = layout.CONFIG_FILE if record.config is not None else f"{layout.RESULTS_FILE} (of its evaluation)"
    return {
        "config": configuration.fields(config) if isinstance(config, dict) else {},
        "config_source": source,
        "versions": configuration.versions(results),
        "versions_source": layout.RESULTS_FILE if results else "this installation, as there are no results yet",
        "devices": [str(device) for device in (results or {}).get("devices", ())],
        "checksums": dict((results or {}).get("checksums") or {}),
        "checkpoint": tables.checkpoint_of(results) if results else "",
        "steps": record.steps,
        "conversion": {name: configuration.text(value) for name, value in (record.conversion or {}).items()},
    }


def _look(
    record: Record, other: Record | None, options: Options, pictures: Pictures
) -> tuple[dict[str, Shown], list[tuple[str, str]]]:
    """Returns the sections that the networks are needed for, and facts about what they are shown."""
    try:
        trained, note = open_networks(record)
        opened = open_data(
            record,
            trained,
            note,
            name=options.dataset,
            data_dir=options.data_dir,
            protocol=options.protocol,
        )
        kept = read_kept(opened, record.folder)
        embeddings = embed(opened) if kept is None else kept
        view = make_view(opened, embeddings, options.stream)
        scores = view.score()
    except (InputError, MissingInputError, OSError) as error:
        if options.asked:
            raise
        return {name: Shown(missing=f"Not available: {error}") for name in _SECTIONS}, []
    budget = sections.divide(options.images, options.ranks)
    makers: dict[str, Callable[[], Shown]] = {
        "ranked": lambda: sections.ranked_section(opened, view, scores, budget, pictures),
        "attention": lambda: _attention(record, other, opened, budget, pictures),
        "similarities": lambda: sections.similarity_section(opened, embeddings),
        "confusions": lambda: sections.confusion_section(opened, view, budget, pictures),
    }
    looked = {}
    for name, make in makers.items():
        try:
            looked[name] = make()
        except (InputError, MissingInputError, RunError, OSError) as error:
            looked[name] = Shown(missing=f"Not available: {error}")
    for name in ("ranked", "confusions"):
        looked[name].content |= {"said": _said(opened, view, scores)}
        looked[name].notes += [_agrees(record, opened, view, scores)] if name == "ranked" else []
        looked[name].notes = [note for note in looked[name].notes if note]
    facts = [
        ("images looked at", f"{opened.config.data.name}: {len(opened.query)} queries, {len(opened.gallery)} gallery"),
        *((("note", opened.note),) if opened.note else ()),
        ("embeddings", "computed for this page" if kept is None else "those of the last evaluation"),
    ]
    return looked, facts


def _attention(
    record: Record, other: Record | None, opened: Opened, budget: sections.Budget, pictures: Pictures
) -> Shown:
    runs, notes = [Run(_run_name(record), opened.trained)], []
    if other is None and record.field("model.attention") != "none":
        notes.append("For the maps of a run without L_att beside these, name its workdir with --compare.")
    elif other is not None:
        name = _run_name(other)
        if name == runs[0].name:
            runs[0] = Run(f"{short_name(record.folder)}, {name}", opened.trained)
            name = f"{short_name(other.folder)}, {name}"
            notes.append("The two runs have the same weight of L_att: their maps differ for other reasons.")
        try:
            runs.append(Run(name, open_networks(other)[0]))
        except (InputError, MissingInputError) as error:
            notes.append(f"{name}: {error}")
    shown = sections.attention_section(opened, runs, budget, pictures)
    shown.notes = notes + shown.notes
    return shown


def _run_name(record: Record) -> str:
    weight = record.field("loss.attention_weight")
    if weight is None or record.field("model.attention") == "none":
        return short_name(record.folder)
    return f"with L_att (weight {weight:g})" if weight else "without L_att"


def _said(opened: Opened, view: View, scores: Scores) -> str:
    """Returns in words whose rankings are shown."""
    protocol = opened.protocol
    shot = f" Of its {view.draws} random galleries this is the first." if view.draws else ""
    return (
        f"Stream: {view.stream}. Protocol: {protocol.name} ({protocol.description}).{shot} {scores.counted} of"
        f" {scores.queries} queries are counted, {len(view.gallery)} gallery images; {map_name(scores.integration)}"
        f" {100 * scores.map:.1f} %,"
        f" R-1 {100 * scores.ranks['R-1']:.1f} %."
    )


def _agrees(record: Record, opened: Opened, view: View, scores: Scores) -> str:
    """Returns a remark where the networks as they are now do not give the results that are on file."""
    results: dict[str, Any] = next(
        (found for found in record.results.values() if found.get("dataset") == opened.config.data.name), {}
    )
    for entry in tables.entries(results):
        if (entry.get("protocol"), entry.get("stream")) != (opened.protocol.name, view.stream) or view.draws:
            continue
        if not np.isclose(entry.get("mAP", np.nan), scores.map, atol=_EQUAL, rtol=0):
            return (
                f"The results on file have an mAP of {tables.percent(entry.get('mAP'))} % here: they are of another"
                " checkpoint or other settings than the networks looked at. --mode evaluate of deskpro_jax.main writes"
                " them again."
            )
    return ""
