"""Junk images are ignored and distractors match nobody: in scores, re-ranking, single-shot draws and search."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import runs
from deskpro_jax import experiment
from deskpro_jax.cli import search
from deskpro_jax.data import opening
from deskpro_jax.data.datasets.find import find_protocols
from deskpro_jax.data.load import dataset
from deskpro_jax.data.load.dataset import ReIDSplit, mark_identities
from deskpro_jax.data.schema import DISTRACTOR, JUNK
from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation import evaluate, protocols
from deskpro_jax.evaluation.matching_rules import NO_PERSON
from deskpro_jax.evaluation.reranking import Reranking
from deskpro_jax.report import opened, record
from deskpro_jax.search.approximate import METHODS, build_index
from deskpro_jax.workdir import layout
from gallery import parts_of, people, write

# In the order of rank for every query: identity and camera.
GALLERY = ((-1, 2), (0, 2), (1, 2), (2, 1), (1, 3), (0, 1))
QUERY = ((1, 1), (0, 3), (-1, 4))


def split_of(name: str, rows: tuple[tuple[int, int], ...]) -> ReIDSplit:
    """Returns a split with these identities and cameras, and no records."""
    identity, camera = np.array(rows).T
    nothing, ids = np.zeros(len(rows), bool), [f"{name}{i}" for i in range(len(rows))]
    positions, unknown = np.arange(len(rows)), np.full(len(rows), -1)
    return ReIDSplit("folder", name, ids, identity, camera, unknown, *3 * (nothing,), {}, [], positions)


def embeddings() -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings of QUERY, all alike, and of GALLERY, each farther away than the one before."""
    angles = np.arange(1, len(GALLERY) + 1) * 0.1
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.repeat([[1.0, 0.0]], len(QUERY), axis=0), gallery


def scored(junk: tuple[int, ...], distractors: tuple[int, ...], **options: object) -> evaluate.Result:
    splits = [split_of("query", QUERY), split_of("gallery", GALLERY)]
    query, gallery = (mark_identities(split, junk, distractors) for split in splits)
    rows = embeddings()
    chosen = find_protocols("folder", ["general"])
    results = evaluate.score_embeddings(*rows, (query, gallery), parts_of(rows[0], 1), chosen, 0, **options)
    return results[-1]


def test_market_by_hand() -> None:
    figures = scored((-1,), (0,)).result
    # Of the query 1: distractor, right, wrong, right, distractor; the junk image is not ranked.
    assert figures.figures["mAP"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert (figures.figures["R-1"], figures.figures["R-5"], figures.gallery) == (0, 1, 5)
    scores = figures.scores[0]
    assert (scores.queries, scores.counted, scores.dropped) == (2, 1, {NO_PERSON: 1})
    assert scores.first_match[0] == 2


def test_without_the_options_negative_identities_are_distractors_and_zero_is_a_person() -> None:
    figures = scored((), ()).result
    own, zero = (1 / 3 + 2 / 5) / 2, (1 / 2 + 2 / 6) / 2
    assert figures.figures["mAP"] == pytest.approx((own + zero) / 2)
    assert figures.gallery == 6


def test_junk_takes_no_part_in_re_ranking() -> None:
    again = scored((-1,), (0,), reranking=Reranking(k1=3, k2=2)).result
    query, gallery = embeddings()
    kept = [dataset.subset(split_of("query", QUERY), [0, 1]), dataset.subset(split_of("gallery", GALLERY), range(1, 6))]
    without = evaluate.score_embeddings(
        query[:2],
        gallery[1:],
        (mark_identities(kept[0], (), (0,)), mark_identities(kept[1], (), (0,))),
        parts_of(query, 1),
        find_protocols("folder", ["general"]),
        0,
        Reranking(k1=3, k2=2),
    )[-1].result
    assert again.protocol.name == "general_reranked"
    assert again.figures == without.figures
    np.testing.assert_array_equal(again.scores[0].average_precision, without.scores[0].average_precision)


def test_every_distractor_stays_in_a_single_shot_gallery() -> None:
    identity = np.array([3, -1, 3, -1, 5, -7])
    for draw in range(5):
        kept = protocols.draw_single_shot(identity, seed=0, draw=draw)
        assert sorted(identity[kept]) == [-7, -1, -1, 3, 5]


def test_a_dataset_of_nothing_but_junk_says_so() -> None:
    query, gallery = (mark_identities(split_of(n, GALLERY), (-1, 0, 1, 2), ()) for n in ("query", "gallery"))
    reason = protocols.not_applicable(find_protocols("folder")[0], *map(evaluate.labels_of, (query, gallery)))
    assert reason is not None
    assert "6 of them are junk (eval.junk_identities)" in reason


def test_test_splits_are_marked_as_the_configuration_says(tiny_data: Path, tmp_path: Path) -> None:
    plain = opening.load_test(runs.config(tiny_data), tmp_path)[1].identity
    junk, distractor = (int(number) for number in np.unique(plain)[:2])
    c = runs.config(tiny_data, eval__junk_identities=(junk,), eval__distractor_identities=(distractor,))
    for data in (opening.load_test(c, tmp_path)[1], opening.load_data(c, tmp_path).gallery):
        np.testing.assert_array_equal(data.identity == JUNK, plain == junk)
        np.testing.assert_array_equal(data.identity == DISTRACTOR, plain == distractor)
        assert len(data) == len(plain)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eval__junk_identities": (-1, 0), "eval__distractor_identities": (0,)}, "both list 0"),
        ({"eval__junk_identities": ("-1",)}, "eval.junk_identities is ('-1',); it must be a sequence of integers"),
    ],
)
def test_contradictions_are_refused(tiny_data: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        experiment.validate(runs.config(tiny_data, **fields), "evaluate")
    assert message in str(caught.value)


def test_the_report_takes_them_from_the_last_evaluation(tiny_data: Path, tmp_path: Path) -> None:
    trained = runs.config(tiny_data, eval__distractor_identities=(5,))
    layout.settle_config(tmp_path, trained)
    networks: Any = SimpleNamespace(sizes={"body": (64, 32), "face": (32, 32)})

    def shown() -> list[tuple[int, ...]]:
        config = opened._config(record.read_record(tmp_path), networks, None)
        return [config.eval.junk_identities, config.eval.distractor_identities]

    assert shown() == [(), (5,)]
    later = runs.config(tiny_data, eval__junk_identities=(-1, 7))
    results = {"dataset": later.data.name, "config": json.loads(later.to_json_best_effort())}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert shown() == [(-1, 7), ()]


@pytest.mark.parametrize("method", ["exact", *METHODS])
def test_a_search_leaves_junk_out(tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    gallery, query = people(200, 20, 0), people(4, 20, 1)
    gallery.identity[gallery.identity == 3] = -1
    out, index = write(gallery, tmp_path / "g.parquet"), tmp_path / "index"
    query_file = write(query, tmp_path / "q.npy")
    flags = ["--gallery", str(out), "--query", str(query_file), "-k", "200", "--method", method, "--format", "json"]
    flags += [] if method == "exact" else ["--index", str(index), "--effort", "200"]
    assert search.main(flags) == 0
    before = json.loads(capsys.readouterr().out)
    assert search.main([*flags, "--junk=-1", "--distractors=0"]) == 0
    captured = capsys.readouterr()
    after, left_out = json.loads(captured.out), np.count_nonzero(gallery.identity == -1)
    assert f"note: --junk leaves out {left_out} of the 200 images of the gallery." in captured.err
    for all_of, kept in zip(before, after, strict=True):
        expected = [match["image_id"] for match in all_of["matches"] if match["identity"] != -1]
        assert [match["image_id"] for match in kept["matches"]] == expected
        assert len(expected) == np.count_nonzero(gallery.identity != -1)
        assert [match["rank"] for match in kept["matches"]] == list(range(1, len(expected) + 1))
    if method != "exact":
        everything = np.ones(200, bool)
        found = build_index(EmbeddingSet(out), method).search(query.vectors, 5, left_out=everything)
        assert (found.rows == -1).all()


def test_a_search_refuses_an_identity_that_is_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(write(people(20, 4, 0), tmp_path / "g.parquet"))
    assert search.main(["--gallery", out, "--query", out, "--junk=0", "--distractors", "0000"]) == 2
    assert "--junk and --distractors both list 0" in capsys.readouterr().err


def test_thresholds_of_nothing_but_special_identities_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(write(people(20, 2, 0), tmp_path / "g.parquet"))
    flags = ["--gallery", out, "--query", out, "--calibrate", out]
    assert search.main([*flags, "--junk=0", "--distractors=1"]) == 2
    message = capsys.readouterr().err
    assert "all 20 identities are negative, junk (--junk) or distractors (--distractors)" in message
