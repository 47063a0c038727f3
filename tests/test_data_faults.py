"""Workers that die are replaced, and records that cannot be read are named, or skipped and counted where allowed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runs
import stand_in
from deskpro_jax.checkpoints.selection import skipped_images
from deskpro_jax.data import records
from deskpro_jax.data.load import dataset, pipeline
from deskpro_jax.errors import InputError, RunError, Stopped


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with stand_in.small_streams():
        yield


def test_a_worker_that_is_killed_is_replaced_and_the_batches_stay_the_same(
    tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = runs.config(tiny_data, **stand_in.FIELDS)
    split = dataset.load("synthetic_tiny", tiny_data, "train")
    expected = pipeline.train_batches(split, config, seed=0, phase="student")
    chosen = config.copy_and_resolve_references()
    chosen.data.workers = 1
    batches = pipeline.train_batches(split, chosen, seed=0, phase="student")
    for step in range(9):
        if step == 2:
            (worker,) = multiprocessing.active_children()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        found, wanted = next(batches), next(expected)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted), step
    batches.close()
    expected.close()
    assert (
        "a data worker of synthetic_tiny/train died (Worker process was terminated unexpectedly with exit code -9)"
        in (caplog.text)
    )


def test_workers_that_die_again_and_again_end_the_run(tiny_data: Path) -> None:
    def dead(position: int) -> Iterator[Any]:
        raise RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search the logs")
        yield

    split = dataset.load("synthetic_tiny", tiny_data, "train")
    with pytest.raises(RunError, match=r"died 3 times over batch 0 of synthetic_tiny/train .*lower data.workers"):
        next(pipeline.Batches(dead, split))


@pytest.fixture(scope="module")
def damaged_data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The dataset with one unreadable record in the training and the gallery split, and the names of these."""
    folder = Path(shutil.copytree(tiny_data, tmp_path_factory.mktemp("damaged") / "data"))
    names = {}
    for split, index in (("train", 11), ("gallery", 3)):
        opened = dataset.load("synthetic_tiny", tiny_data, split)
        needle, names[split] = opened[index].body[2000:2100], opened.image_id[index]
        shard = next(records.dataset_path("synthetic_tiny", folder).glob(f"*-{split}.array_record-*"))
        content = bytearray(shard.read_bytes())
        assert content.count(needle) == 1
        content[content.index(needle) + 50] ^= 1
        shard.write_bytes(content)
    return folder, names


def test_an_unreadable_record_is_named_with_its_file(damaged_data: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, names = damaged_data
    shard = next(records.dataset_path("synthetic_tiny", folder).glob("*-train.array_record-*"))
    with pytest.raises(InputError) as error:
        runs.run(runs.config(folder, **stand_in.FIELDS), tmp_path)
    for part in (names["train"], "synthetic_tiny/train", f"record 11 of {shard}", "data.skip_corrupt"):
        assert part in str(error.value)


def test_skipped_records_are_counted_in_metrics_and_results(
    damaged_data: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, names = damaged_data
    config = runs.config(folder, **stand_in.FIELDS, data__skip_corrupt=True)
    with stand_in.moments(stand_in.sender("SIGTERM@step-student-8")), pytest.raises(Stopped):
        runs.run(config, tmp_path)  # the count goes on where it was
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    runs.run(config, tmp_path)
    record = json.loads((tmp_path / "results.json").read_text())
    ends = {phase: [x["skipped_images"] for x in runs.lines(tmp_path / phase) if "skipped_images" in x] for phase in
            runs.STEPS}  # fmt: skip
    split = dataset.load("synthetic_tiny", folder, "train")
    for phase, counts in ends.items():
        batches = pipeline.train_batches(dataset.usable(split, phase == "teacher", False), config, seed=0, phase=phase)
        reads = []
        for _ in range(2):
            for _ in range(runs.STEPS[phase]):
                next(batches)
            reads.append(sum(batches.skipped.values()))
        batches.close()
        assert counts == reads
    assert record["skipped"] == {phase: counts[-1] for phase, counts in ends.items()} | {
        "query": [],
        "gallery": [names["gallery"]],
    }
    assert sum(counts[-1] for counts in ends.values()) >= 1
    assert skipped_images(tmp_path) == {phase: counts[-1] for phase, counts in ends.items()}
