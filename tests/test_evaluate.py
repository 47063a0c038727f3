"""Streams, embeddings and scores of every kind of network, and the plain features they are compared with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import runs
from deskpro_jax import experiment
from deskpro_jax.data.load import dataset
from deskpro_jax.evaluation import evaluate, protocols
from deskpro_jax.methods import deskpro
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import Counts, Network, StreamSpec, embedding_streams
from deskpro_jax.models.lmbn import PARTS
from deskpro_jax.runtime import sharding


def record(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def streams_of(folder: Path) -> list[str]:
    return [result["stream"] for result in record(folder)["results"] if result["protocol"] == "general"]


def network(config: ConfigDict, *, body: bool = False, face: bool = False, field: str = "face") -> Network:
    left_out = {f"{name}_stream": None for name, kept in (("body", body), ("face", face)) if not kept}
    module = deskpro.build(config, Counts(runs.CLASSES)).clone(face_image=field, **left_out)
    specs = deskpro.streams(config)
    streams = [replace(spec, image=field) if spec.reads_face else spec for spec in specs]
    return Network(module, tuple(spec for spec in streams if (face if spec.reads_face else body)))


def names(networks: list[Network]) -> tuple[str, ...]:
    return tuple(stream.name for stream in embedding_streams(networks))


def test_streams_come_face_first(tiny_data: Path) -> None:
    config = runs.config(tiny_data)
    body, face = network(config, body=True), network(config, face=True)
    assert names([body, face]) == ("face", "body")
    assert names([network(config, body=True, face=True)]) == ("face", "body")
    assert names([body]) == ("body",)
    assert names([face]) == ("face",)
    assert network(config, body=True, face=True, field="restored_face").images == ("restored_face", "body")
    assert body.images == ("body",)


def test_raw_pixels_are_scored_by_euclidean_distance(tiny_data: Path) -> None:
    config = runs.config(tiny_data)
    query, gallery = (dataset.load("synthetic_tiny", tiny_data, name) for name in ("query", "gallery"))
    query, gallery = dataset.subset(query, np.arange(4)), dataset.subset(gallery, np.arange(len(gallery)))
    pixels = [evaluate.raw_pixels(split, config) for split in (query, gallery)]
    assert pixels[0].shape == (4, 64 * 32 * 3)
    assert 0 <= pixels[0].min() < pixels[0].max() <= 1
    protocol = protocols.find_protocols("synthetic_tiny", ("general",))[0]
    found = evaluate.score_raw_pixels((query, gallery), config, protocol)

    precisions, first = [], []
    for i, image in enumerate(pixels[0]):
        other = ~((gallery.identity == query.identity[i]) & (gallery.camera == query.camera[i]))
        distance = np.linalg.norm(pixels[1][other].astype(np.float64) - image, axis=1)
        hits = (gallery.identity[other] == query.identity[i])[np.argsort(distance)]
        if hits.any():
            ranks = np.flatnonzero(hits) + 1
            precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
            first.append(hits[0])
    assert found.counted == len(precisions) > 0
    assert found.map == pytest.approx(np.mean(precisions), abs=1e-6)
    assert found.ranks["R-1"] == pytest.approx(np.mean(first))


@pytest.mark.slow
def test_an_image_without_a_face_has_zeros_there_and_no_nan(tiny_data: Path) -> None:
    config = runs.config(tiny_data)
    split = dataset.load("synthetic_tiny", tiny_data, "train")
    split = dataset.subset(split, np.r_[np.flatnonzero(~split.has_face)[:3], np.flatnonzero(split.has_face)[:4]])
    assert split.has_face.tolist() == [False] * 3 + [True] * 4
    mesh = sharding.make_mesh(config)
    net = network(config, body=True, face=True)
    variables = sharding.put_replicated(mesh, initialisers.init_variables(net.module, 0))
    embed = evaluate.make_embed([net], True, mesh)
    found = evaluate.embed_split(embed, [variables], split, config, mesh, net.images)
    width = 7 * config.model.feature_dim
    assert found.shape == (len(split), 2 * width)
    assert np.isfinite(found).all()
    assert not found[~split.has_face, :width].any()
    lengths = np.linalg.norm(found.reshape(len(split), 14, -1), axis=2)
    np.testing.assert_allclose(lengths[split.has_face], 1, atol=1e-5)
    np.testing.assert_allclose(lengths[:, 7:], 1, atol=1e-5)


@pytest.mark.slow
def test_deskpro_star_joins_body_student_and_teacher(reference: Path, tiny_data: Path, tmp_path: Path) -> None:
    config = runs.config(tiny_data, "deskpro_star,debug", teacher__checkpoint=str(reference), train__epochs=1)
    runs.run(config, tmp_path)
    assert streams_of(tmp_path) == ["face", "body", "both"]
    assert not (tmp_path / "teacher").exists()
    assert {"ce_body", "attention"} <= set(runs.losses(tmp_path / "student")[1])
    assert not {"ce_face", "kd"} & set(runs.losses(tmp_path / "student")[1])
    assert record(tmp_path)["checkpoint"] == {"report": "last", "teacher": 10, "student": 6}

    alone = tmp_path / "teacher_alone"
    runs.run(runs.config(tiny_data, "teacher,debug", teacher__checkpoint=str(reference / "teacher")), alone)
    assert streams_of(alone) == ["face"]
    assert not (alone / "student").exists()
    face = {r["protocol"]: r for r in record(tmp_path)["results"] if r["stream"] == "face"}
    assert {r["protocol"]: r for r in record(alone)["results"]} == face  # the same teacher on the same faces


@pytest.mark.slow
def test_baselines_show_the_teacher_in_the_place_of_the_student(
    reference: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = runs.config(tiny_data, "debug", eval__baselines=True)
    experiment.run(config, reference, "evaluate", write=False)
    shown = capsys.readouterr().out
    assert "face, both, teacher: the same with the teacher, which sees restored faces, in the student's place." in shown


@pytest.mark.slow
def test_the_baseline_has_a_body_stream_alone(tiny_data: Path, tmp_path: Path) -> None:
    config = runs.config(tiny_data, "baseline,debug", train__epochs=1, eval__baselines=True)
    runs.run(config, tmp_path)
    assert streams_of(tmp_path) == ["body"]
    assert set(runs.losses(tmp_path / "student")[1]) == {"ce_body", "triplet_body", "total", "learning_rate"}
    assert [row["stream"] for row in record(tmp_path)["baselines"]] == ["raw pixels", "body, untrained"]
    assert not (tmp_path / "teacher").exists()


@pytest.mark.slow
def test_validation_reports_the_best_checkpoint_on_held_out_identities(tiny_data: Path, tmp_path: Path) -> None:
    config = runs.config(
        tiny_data,
        "face,debug",
        eval__report="validation",
        eval__every=1,
        data__validation_identities=2,
        train__base_lr=0.001,
    )
    runs.run(config, tmp_path)
    assert streams_of(tmp_path) == ["face"]
    evaluated = {line["step"]: line for line in runs.lines(tmp_path / "student") if "mAP" in line}
    assert len(evaluated) == 2
    assert all("validation/face/R-1" in line and "general/face/mAP" not in line for line in evaluated.values())
    best = max(evaluated, key=lambda step: (evaluated[step]["mAP"], step))
    assert record(tmp_path)["checkpoint"] == {"report": "validation", "student": best}
    assert "kd" not in runs.losses(tmp_path / "student")[1]


def test_labels_and_embeddings_of_a_split_keep_its_order(tiny_data: Path) -> None:
    split = dataset.load("synthetic_tiny", tiny_data, "gallery")
    labels = evaluate.labels_of(split)
    np.testing.assert_array_equal(labels.identity, split.identity)
    taken = labels.take(np.array([3, 1]))
    np.testing.assert_array_equal(taken.camera, split.camera[[3, 1]])


def test_a_perfect_embedding_scores_one_in_each_stream(tiny_data: Path) -> None:
    query, gallery = (dataset.load("synthetic_tiny", tiny_data, name) for name in ("query", "gallery"))
    people = np.unique(gallery.identity)
    # Seven parts a stream; the face says who it is, the body says nothing.
    face = [np.tile(np.eye(len(people))[np.searchsorted(people, s.identity)], 7) for s in (query, gallery)]
    body = [np.ones_like(f) for f in face]
    both = [np.concatenate(pair, axis=1).astype(np.float32) for pair in zip(face, body, strict=True)]
    wanted = protocols.find_protocols("synthetic_tiny")
    results = evaluate.score_embeddings(
        both[0],
        both[1],
        (query, gallery),
        evaluate.similarity_of([StreamSpec(name, name, PARTS, (), len(people)) for name in ("face", "body")]),
        wanted,
        0,
    )
    assert [(r.result.protocol.name, r.stream) for r in results] == [
        (p.name, stream) for p in wanted for stream in ("face", "body", "both")
    ]
    figures = {r.stream: r.result.figures["mAP"] for r in results if r.result.protocol.name == "general"}
    assert figures["face"] == figures["both"] == 1.0
    assert figures["body"] < 0.9
    row = results[0].row()
    assert (row.protocol, row.stream, row.counted) == ("general", "face", len(query))
