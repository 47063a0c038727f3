"""Each row of a results table is explained by a sentence, and commands follow that use the networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import runs
from deskpro_jax import methods
from deskpro_jax.data.load import dataset
from deskpro_jax.evaluation import sentences
from deskpro_jax.evaluation.results_table import ResultRow
from deskpro_jax.models.contract import embedding_streams


def streams(*variant: str):
    config = runs.config(Path("data"), ",".join((*variant, "debug")), model__backbone="x0_25")
    return embedding_streams([spec.network(config, 3) for spec in methods.phases(config) if spec.embeds])


def row(stream: str, value: float, protocol: str = "general") -> ResultRow:
    return ResultRow(protocol, stream, value, {}, 8, 0)


@pytest.fixture
def splits(tiny_data: Path):
    return tuple(dataset.load("synthetic_tiny", tiny_data, name) for name in ("query", "gallery"))


def test_each_stream_and_each_baseline_has_one_sentence(splits) -> None:
    rows = [row("face", 0.5), row("body", 0.3), row("both", 0.534), row("face", 0.9, "cc"), row("both", 0.1, "cc")]
    rows += [row("both, teacher", 0.6), row("raw pixels", 0.1), row("face, untrained", 0.2)]
    rows += [row("both, untrained", np.nan)]
    face, body, both, *baselines = sentences.of_rows(rows, streams(), splits, "body")
    lost = int((~splits[1].has_face).sum())
    assert lost
    assert face == (
        f"face: only the face stream, which reads faces as photos show them; {lost} of {len(splits[1])} gallery photos"
        " show none, and nobody can be told apart by them."
    )
    assert body == "body: only the body stream, which reads whole photos."
    assert both == (
        "both: face and body together, two photos compared by what both show; its mAP is 3.4 points above face and"
        " 23.4 points above body."
    )
    assert baselines == [
        "raw pixels: the nearest neighbour by pixel values, without a network: what networks have to beat.",
        "both, teacher: the same with the teacher, which sees restored faces, in the student's place.",
        "face, both, untrained: the same with random weights, before any training.",
    ]


def test_what_does_not_come_out_is_said_too(splits) -> None:
    rows = [row("face", 0.672), row("body", 0.07), row("both", 0.48)]
    both = sentences.of_rows(rows, streams(), splits, "zeros")[-1]
    assert "by all parts, zeros where a photo shows no face" in both
    assert "19.2 points below face and 41.0 points above body" in both
    nothing = [row("face", np.nan), row("body", 0.07), row("both", 0.48)]
    assert "not comparable with face" in sentences.of_rows(nothing, streams(), splits, "body")[-1]


def test_a_method_of_one_stream_and_a_teacher_are_named_by_what_they_read(splits) -> None:
    (one,) = streams("osnet")
    assert sentences.of_rows([row(one.name, 0.5)], (one,), splits, "body") == [
        f"{one.name}: the {one.name} stream, which reads whole photos."
    ]
    teacher = sentences.of_rows([row("face", 0.5)], streams("teacher"), splits, "body")
    assert "the face stream, which reads restored faces" in teacher[0]


def test_what_comes_next_has_the_workdir_and_the_files_that_the_networks_read() -> None:
    config = runs.config(Path("data"), data__build_seed=3)
    report, draw, embed_, search_ = sentences.next_commands(Path("my runs/a"), config.data, streams())
    assert report == "deskpro report 'my runs/a'"
    assert draw == "deskpro draw --size tiny --seed 3 --out drawn"
    assert "--images drawn/imgs/bounding_box_test --faces drawn/lr_face/bounding_box_test" in embed_
    assert "--query drawn/imgs/query --faces drawn/lr_face/query --checkpoint 'my runs/a'" in search_
    config.data.name = "prcc"
    commands = sentences.next_commands(Path("w"), config.data, streams("osnet"))
    assert [line.split()[1] for line in commands] == ["report", "embed", "search"]
    assert not any("--faces" in line for line in commands)
