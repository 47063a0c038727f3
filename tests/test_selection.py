"""The best checkpoint of each stream is kept, and stitched together where the results ask for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from deskpro_jax.checkpoints.selection import METRICS, restore_reported
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import InputError

# step -> mAP of both streams together, of the face stream, of the body stream
SCORES = {1: (0.2, 0.9, 0.1), 2: (0.6, 0.3, 0.2), 3: (0.5, 0.2, 0.8), 4: (0.4, 0.4, 0.3), 5: (0.3, 0.1, 0.4)}


def state(step: int) -> dict[str, Any]:
    streams = {"face_stream": {"w": jnp.full(3, 10.0 + step)}, "body_stream": {"w": jnp.full(3, 20.0 + step)}}
    return {"params": streams, "batch_stats": {name: dict(tree) for name, tree in streams.items()}}


def value(found: Any, stream: str) -> float:
    return float(found["params"][stream]["w"][0])


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "checkpoints"
    with CheckpointStore(folder, best_metric=METRICS, asynchronous=False) as store:
        for step, scores in SCORES.items():
            store.save(step, {**state(step), "opt_state": jnp.zeros(2)}, data={})
            store.add_scores(step, dict(zip(METRICS, scores, strict=True)))
    return folder


def test_the_newest_two_and_the_best_of_each_metric_stay(scored: Path) -> None:
    with CheckpointStore(scored, best_metric=METRICS, read_only=True) as store:
        assert store.steps() == (1, 2, 3, 4, 5)
        assert [store.best_step(metric) for metric in (None, *METRICS)] == [2, 2, 1, 3]


def test_a_checkpoint_that_is_no_longer_the_best_of_anything_goes(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path, best_metric=METRICS, asynchronous=False) as store:
        for step, best in ((1, 0.1), (2, 0.2), (3, 0.3), (4, 0.1)):
            store.save(step, state(step), data={})
            store.add_scores(step, dict.fromkeys(METRICS, best))
        assert store.steps() == (3, 4)


def test_each_report_takes_its_own_checkpoints(scored: Path) -> None:
    with CheckpointStore(scored, best_metric=METRICS, read_only=True) as store:
        last, step = restore_reported(store, state(0), "last") or (None, None)
        assert (value(last, "face_stream"), value(last, "body_stream"), step) == (15.0, 25.0, 5)
        best, step = restore_reported(store, state(0), "validation") or (None, None)
        assert (value(best, "face_stream"), value(best, "body_stream"), step) == (12.0, 22.0, 2)
        stitched, steps = restore_reported(store, state(0), "stitched") or (None, None)
        assert (value(stitched, "face_stream"), value(stitched, "body_stream")) == (11.0, 23.0)
        assert steps == {"face": 1, "body": 3}
        assert float(stitched["batch_stats"]["body_stream"]["w"][0]) == 23.0


def test_a_lone_stream_comes_from_its_own_best(scored: Path) -> None:
    wanted = {collection: {"body_stream": tree["body_stream"]} for collection, tree in state(0).items()}
    with CheckpointStore(scored, best_metric=METRICS, read_only=True) as store:
        found, steps = restore_reported(store, wanted, "stitched") or (None, None)
    assert steps == {"body": 3}
    assert set(found["params"]) == {"body_stream"}


def test_without_scores_every_report_is_the_last(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path, best_metric=METRICS, asynchronous=False) as store:
        assert restore_reported(store, state(0), "stitched") is None
        for step in (1, 2):
            store.save(step, state(step), data={})
        _, steps = restore_reported(store, state(0), "stitched") or (None, None)
        assert steps == {"face": 2, "body": 2}
        _, step = restore_reported(store, state(0), "validation") or (None, None)
        assert step == 2
        with pytest.raises(InputError, match=r"eval\.report is 'best'; expected one of last, validation, stitched\."):
            restore_reported(store, state(0), "best")


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("collection", ["params", "batch_stats"])
def test_a_checkpoint_that_is_not_finite_is_refused_by_the_name_of_the_parameter(
    tmp_path: Path, collection: str, value: float
) -> None:
    broken = state(1)
    broken[collection]["body_stream"]["w"] = jnp.asarray([0.0, value, 0.0])
    with CheckpointStore(tmp_path / "checkpoints", best_metric=METRICS, asynchronous=False) as store:
        store.save(1, broken, data={})
        store.add_scores(1, dict.fromkeys(METRICS, 0.5))
        for report in ("last", "validation", "stitched"):
            with pytest.raises(InputError, match=f"step .*1.* holds NaN or infinity in {collection}/body_stream/w: "):
                restore_reported(store, state(0), report)
