"""Thresholds let through as many pairs of different people as asked for, and hold what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.embedding.files import Part
from deskpro_jax.embedding.job import Work
from deskpro_jax.embedding.photo_list import Listed
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation.similarity import similarity
from deskpro_jax.search import thresholds
from deskpro_jax.search.special_identities import SpecialIdentities
from deskpro_jax.search.thresholds import calibrate, read_thresholds, write_thresholds
from gallery import PARTS, people, write


@pytest.mark.parametrize("rate", [0.01, 0.001, 0.2])
def test_a_threshold_has_the_false_accept_rate_asked_for(tmp_path: Path, rate: float) -> None:
    drawn = people(700, 40, 0, noise=0.6)
    found = calibrate(EmbeddingSet(write(drawn, tmp_path / "e.npy")), rate)
    assert list(found.by_streams) == ["face and body", "body"]
    for by, chosen, columns in (
        ("face and body", drawn.has_face, slice(None)),
        ("body", np.ones(700, bool), slice(drawn.vectors.shape[1] // 2, None)),
    ):
        parts = PARTS if by != "body" else PARTS // 2
        near = similarity(*2 * (drawn.vectors[chosen][:, columns],), parts=parts)
        who = drawn.identity[chosen]
        upper = np.triu(np.ones_like(near, bool), 1)
        different, same = (near[upper & (who[:, None] == who) ^ (upper & flag)] for flag in (True, False))
        limit = found.by_streams[by]
        assert (limit.different, limit.same) == (len(different), len(same))
        accepted = (different >= limit.similarity).mean()
        assert accepted <= rate
        assert accepted == pytest.approx(limit.far, abs=2 / len(different))  # rounding of single products
        assert np.sort(different)[::-1][int(rate * len(different))] < limit.similarity + 1e-6  # no lower one would do
        assert limit.tar == pytest.approx((same >= limit.similarity).mean(), abs=2 / len(same))


def test_a_rule_of_zeros_halves_what_bodies_reach(tmp_path: Path) -> None:
    drawn = people(200, 20, 0)
    by_body = calibrate(EmbeddingSet(write(drawn, tmp_path / "e.npy")))
    by_zeros = calibrate(EmbeddingSet(write(drawn, tmp_path / "z.npy", missing_face="zeros")))
    assert (by_body.missing_face, by_zeros.missing_face) == ("body", "zeros")
    assert by_zeros.by_streams["face and body"] == by_body.by_streams["face and body"]
    one, other = by_body.by_streams["body"], by_zeros.by_streams["body"]
    assert other.similarity == pytest.approx(one.similarity / 2, rel=1e-6)
    assert other.tar == one.tar
    write_thresholds(tmp_path / "t.json", by_zeros)
    assert read_thresholds(tmp_path / "t.json") == by_zeros


def test_ties_do_not_pass_together(tmp_path: Path) -> None:
    drawn = people(60, 60, 0)
    drawn.vectors[:] = drawn.vectors[0]
    drawn.has_face[:] = True
    found = calibrate(EmbeddingSet(write(drawn, tmp_path / "e.npy")), 0.1)
    assert {limit.far for limit in found.by_streams.values()} == {0.0}


def test_the_answer_depends_on_what_was_compared(tmp_path: Path) -> None:
    found = calibrate(EmbeddingSet(write(people(200, 20, 0), tmp_path / "e.npy")))
    for by, limit in found.by_streams.items():
        assert found.same_person(by, limit.similarity) is True
        assert found.same_person(by, np.nextafter(limit.similarity, -1)) is False
    assert found.same_person("face", 1.0) is None


def test_large_sets_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = EmbeddingSet(write(people(300, 20, 0), tmp_path / "e.npy"))
    monkeypatch.setattr(thresholds, "MAX_IMAGES", 100)
    found = calibrate(labelled)
    assert found == calibrate(labelled)
    limit = found.by_streams["body"]
    assert limit.different + limit.same == 100 * 99 // 2


def test_unknown_people_are_left_out(tmp_path: Path) -> None:
    drawn = people(300, 20, 0)
    known = drawn.identity != 3
    drawn.identity[~known] = -1
    limit = calibrate(EmbeddingSet(write(drawn, tmp_path / "e.npy"))).by_streams["body"]
    assert limit.different + limit.same == known.sum() * (known.sum() - 1) // 2


def test_junk_is_left_out_and_distractors_are_other_people(tmp_path: Path) -> None:
    drawn = people(300, 20, 0)
    drawn.identity[:] += 1
    junk, distractor = drawn.identity == 3, drawn.identity == 5
    drawn.identity[junk], drawn.identity[distractor] = -1, 0
    kept, wrong = int((~junk & ~distractor).sum()), int(distractor.sum())
    labelled = EmbeddingSet(write(drawn, tmp_path / "e.npy"))
    limit = calibrate(labelled, special=SpecialIdentities(("-1",), ("0000",))).by_streams["body"]
    counts = np.bincount(drawn.identity[drawn.identity > 0])
    assert limit.same == (counts * (counts - 1) // 2).sum()
    assert limit.different + limit.same == kept * (kept - 1) // 2 + kept * wrong  # no pair of two distractors


@pytest.mark.parametrize(("identity", "kind"), [
    (-1, "junk"), ("-1", "junk"), (0, "distractor"), ("0000", "distractor"), (-2, "nobody"), ("-2", "nobody"),
    (None, "nobody"), (7, "person"), ("0007", "person"), ("anna", "person"), ("0_0", "person"),
])  # fmt: skip
def test_identities_of_market_are_numbers_or_text(identity: object, kind: str) -> None:
    special = SpecialIdentities(("-1",), ("0000",))
    kinds = {"junk": special.is_junk, "distractor": special.is_distractor, "person": special.is_person}
    assert [name for name, asks in kinds.items() if asks(identity)] == [kind] * (kind != "nobody")


def test_thresholds_without_pairs_of_one_person_say_so(tmp_path: Path) -> None:
    alone = people(60, 60, 0)
    alone.identity[:] = np.arange(60)
    lines = thresholds.sentences(calibrate(EmbeddingSet(write(alone, tmp_path / "a.npy"))))
    assert all("TAR unknown: no pairs of the same person" in line and "nan" not in line for line in lines)


def test_thresholds_come_back_from_their_file(tmp_path: Path) -> None:
    found = calibrate(EmbeddingSet(write(people(200, 20, 0), tmp_path / "e.npy")))
    write_thresholds(tmp_path / "t.json", found)
    assert read_thresholds(tmp_path / "t.json") == found
    alone = people(60, 60, 0)
    alone.identity[:] = np.arange(60)
    write_thresholds(tmp_path / "t.json", calibrate(EmbeddingSet(write(alone, tmp_path / "a.npy"))))
    assert json.loads((tmp_path / "t.json").read_text())["by_streams"]["body"]["true_accepts"] is None
    assert np.isnan(read_thresholds(tmp_path / "t.json").by_streams["body"].tar)


def test_thresholds_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    written = {"similarity": 0.5, "false_accepts": 0.01, "true_accepts": 0.9, "different": 500, "same": 30}
    record = {"model_checksum": "abc", "wanted": 0.01, "by_streams": {"body": written}}
    (tmp_path / "t.json").write_text(json.dumps(record))
    read = read_thresholds(tmp_path / "t.json")
    assert (read.model_checksum, read.max_far, read.missing_face) == ("abc", 0.01, "body")
    assert read.by_streams == {"body": thresholds.Threshold(0.5, 0.01, 0.9, 500, 30)}


def test_what_cannot_be_calibrated_is_refused(tmp_path: Path) -> None:
    drawn = people(10, 5, 0)
    few = EmbeddingSet(write(drawn, tmp_path / "few.npy"))
    with pytest.raises(InputError, match="fewer than 100 pairs of different people"):
        calibrate(few)
    with pytest.raises(InputError, match="the false accept rate is 0"):
        calibrate(few, 0)
    drawn.identity[:] = -1
    with pytest.raises(InputError, match="shows no person whose identity is known"):
        calibrate(EmbeddingSet(write(drawn, tmp_path / "none.npy")))
    with pytest.raises(MissingInputError, match="--calibrate"):
        read_thresholds(tmp_path / "absent.json")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(InputError, match="holds no thresholds"):
        read_thresholds(tmp_path / "t.json")


@pytest.mark.parametrize("form", ["npy", "parquet"])
@pytest.mark.parametrize("by", ["checksum", "path"])
def test_pairs_of_equal_bytes_never_count(tmp_path: Path, form: str, by: str) -> None:
    """Every photo comes twice, under the same label or another: only pairs of different photos set the threshold."""
    once = people(120, 20, 0, faceless=0.0)
    rows = np.repeat(np.arange(120), 2)
    identity = once.identity[rows] + 100 * (np.arange(240) % 5 == 0)  # some copies under another label
    out = tmp_path / f"e.{form}"
    listed = [
        Listed(f"{i:04d}", f"{row if by == 'path' else i}.jpg", None, int(identity[i])) for i, row in enumerate(rows)
    ]
    work = Work(out, form, 64)
    settings = {"model_checksum": "a", "streams": ["face", "body"], "parts": PARTS, "dimension": once.vectors.shape[1]}
    checksums = [f"{row:064x}" for row in rows] if by == "checksum" else None
    for number in work.begin(listed, settings | {"stored": "float32"}):
        part = slice(*work.ranges[number : number + 2])
        vectors = once.vectors[rows[part]]
        work.write(number, Part(listed[part], np.ones(len(vectors), bool), vectors, checksums and checksums[part]), [])
    work.finish()
    near = similarity(once.vectors[rows], once.vectors[rows], parts=PARTS)
    pairs = np.triu(np.ones_like(near, bool), 1) & (rows[:, None] != rows)
    same = pairs & (identity[:, None] == identity)
    found = calibrate(EmbeddingSet(out), 0.01).by_streams["face and body"]
    assert (found.same, found.different) == (same.sum(), (pairs & ~same).sum())
    assert found.tar == pytest.approx((near[same] >= found.similarity).mean(), abs=0.01)
    assert found.similarity < 0.999
