"""What the rows of a results table show, a sentence for each stream, and what to do next with the networks."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.evaluation.results_table import ResultRow
from deskpro_jax.evaluation.scoring import RAW_PIXELS, TEACHER, UNTRAINED
from deskpro_jax.evaluation.similarity import BOTH
from deskpro_jax.models.contract import StreamSpec

_READS = {"body": "whole photos", "face": "faces as photos show them", "restored_face": "restored faces"}
_OTHER_NETWORKS = {
    TEACHER: "with the teacher, which sees restored faces, in the student's place",
    UNTRAINED: "with random weights, before any training",
}
_FACES = {"face": "lr_face", "restored_face": "hr_face"}  # where `deskpro draw` writes them


def of_rows(
    rows: Sequence[ResultRow],
    streams: Sequence[StreamSpec],
    splits: tuple[ReIDSplit, ReIDSplit],
    missing_face: str,
) -> list[str]:
    """Returns sentences for the rows of a results table, with figures of the first protocol that they are in.

    Args:
        rows: of the networks and of the baselines.
        streams: of the embedding.
        splits: query and gallery.
        missing_face: `eval.missing_face`.
    """
    first = {row.stream: row for row in reversed(rows)}
    specs = {spec.name: spec for spec in streams}
    names = list(dict.fromkeys(row.stream for row in rows))
    sentences = []
    for name in names:
        if name in specs:
            text = _of_stream(specs[name], len(streams), splits)
        elif name == BOTH:
            text = _of_both(first, [spec.name for spec in streams], any(s.reads_face for s in streams), missing_face)
        elif name == RAW_PIXELS:
            text = "the nearest neighbour by pixel values, without a network: what networks have to beat"
        else:
            continue
        sentences.append(f"{name}: {text}.")
    for suffix, text in _OTHER_NETWORKS.items():
        if others := [name.removesuffix(suffix) for name in names if name.endswith(suffix)]:
            sentences.append(f"{', '.join(others)}{suffix}: the same {text}.")
    return sentences


def _of_stream(spec: StreamSpec, streams: int, splits: tuple[ReIDSplit, ReIDSplit]) -> str:
    text = f"{'only ' * (streams > 1)}the {spec.name} stream, which reads {_READS.get(spec.image, spec.image)}"
    if not spec.reads_face:
        return text
    has = [split.has_face if spec.image == "face" else split.has_restored_face for split in splits]
    missing = [int(np.count_nonzero(~np.asarray(there))) for there in has]
    if not any(missing):
        return text
    counts = " and ".join(
        f"{lost} of {len(split)} {name} photos"
        for lost, split, name in zip(missing, splits, ("query", "gallery"), strict=True)
        if lost
    )
    return f"{text}; {counts} show none, and nobody can be told apart by them"


def _of_both(first: dict[str, ResultRow], names: list[str], may_be_missing: bool, missing_face: str) -> str:
    text = f"{' and '.join(names)} together"
    if may_be_missing:
        rule = "by what both show" if missing_face == "body" else "by all parts, zeros where a photo shows no face"
        text += f", two photos compared {rule}"
    changes = [f"{_change(first[BOTH].map - first[name].map)} {name}" for name in names]
    return f"{text}; its mAP is {' and '.join(changes)}"


def _change(difference: float) -> str:
    """Returns how far a percentage lies above or below another one."""
    if math.isnan(difference):
        return "not comparable with"
    return f"{_percent(abs(difference))} points {'above' if difference >= 0 else 'below'}"


def _percent(figure: float) -> str:
    return f"{100 * figure:.1f}"


def next_commands(workdir: Path, data: ml_collections.ConfigDict, streams: Sequence[StreamSpec]) -> list[str]:
    """Returns commands that use the networks of a workdir.

    Args:
        workdir: the run's folder.
        data: `config.data`; the people of a drawn dataset can be drawn as files too.
        streams: of the embedding.
    """
    where = shlex.quote(str(workdir))
    size = find_dataset(data.name).synthetic_size
    image = next((spec.image for spec in streams if spec.reads_face), None)
    faces = queries = ""
    if image:
        faces, queries = (
            f" --faces {f'drawn/{_FACES[image]}/{split}' if size else 'PREPARED'}"
            for split in ("bounding_box_test", "query")
        )
    photos, query = ("drawn/imgs/bounding_box_test", "drawn/imgs/query") if size else ("PHOTOS", "PHOTO.jpg")
    return [
        f"deskpro report {where}",
        *([f"deskpro draw --size {size} --seed {data.build_seed} --out drawn"] if size else []),
        f"deskpro embed --checkpoint {where} --images {photos}{faces} --out gallery.parquet",
        f"deskpro search --gallery gallery.parquet --query {query}{queries} --checkpoint {where}",
    ]
