"""Each step appears once in the metrics, whatever killed a run, as strict JSON and as TensorBoard events."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from deskpro_jax.errors import InputError
from deskpro_jax.train import metrics_file
from deskpro_jax.train.metrics_file import MetricWriter


def _lines(folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def _events(folder):
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(content[:8], "little")
            found.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def test_scalars_reach_both_files_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_file.time, "time", lambda: 1.7e9)
    writer = MetricWriter(tmp_path / "student")
    writer.scalars(20, {"loss": np.float32(2.5), "lr": 1e-3}, epoch=0.5)
    (line,) = _lines(tmp_path / "student")  # before close()
    assert line == {"step": 20, "epoch": 0.5, "time": 1.7e9, "loss": 2.5, "lr": 1e-3}
    writer.text(20, "config", "seed 3")
    writer.close()
    writer.scalars(21, {"loss": 1.0})  # after close: nothing
    assert len(_lines(tmp_path / "student")) == 1
    values = [(e.step, v.tag, v.simple_value) for e in _events(tmp_path / "student") for v in e.summary.value]
    assert values[0] == (20, "loss", 2.5)
    assert values[1][:2] == (20, "lr")
    assert values[2][1].startswith("config")


def test_numbers_that_are_not_finite_are_strict_json_and_read_back(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.scalars(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    (line,) = _lines(tmp_path)
    assert (line["a"], line["b"], line["c"]) == ("nan", "inf", "-inf")
    assert math.isnan(float(line["a"]))
    assert float(line["c"]) == -math.inf


def test_a_resumed_run_leaves_each_step_once(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in (10, 20, 30, 40):
            writer.scalars(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "lo')  # killed within a line
    with MetricWriter(tmp_path, resume_step=20) as writer:
        writer.scalars(30, {"loss": -30})
    assert [(line["step"], line["loss"]) for line in _lines(tmp_path)] == [(10, 10), (20, 20), (30, -30)]
    starts = [e.step for e in _events(tmp_path) if e.HasField("session_log")]
    assert starts == [21]  # TensorBoard hides events of the first run from here on
    assert sorted(p.name.split(".")[0] for p in tmp_path.iterdir()) == ["events", "events", "metrics"]


def test_without_a_resume_step_only_a_broken_last_line_goes(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.scalars(10, {"loss": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "loss": 2}')  # whole, but not ended: the next line would be glued to it
    with MetricWriter(tmp_path) as writer:
        writer.scalars(30, {"loss": 3})
    assert [line["step"] for line in _lines(tmp_path)] == [10, 30]


def test_a_kill_while_cutting_keeps_the_old_file(tmp_path, monkeypatch):
    with MetricWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.scalars(step, {"loss": 0})

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        MetricWriter(tmp_path, resume_step=1)
    assert [line["step"] for line in _lines(tmp_path)] == [1, 2, 3]


def test_a_metric_may_not_hide_a_column(tmp_path):
    with MetricWriter(tmp_path) as writer, pytest.raises(InputError, match="'epoch'"):
        writer.scalars(1, {"epoch": 3.0})


def test_other_processes_write_nothing(tmp_path):
    with MetricWriter(tmp_path / "none", enabled=False) as writer:
        writer.scalars(1, {"loss": 1})
        writer.text(1, "config", "x")
    assert not (tmp_path / "none").exists()


def test_lines_are_on_disk_when_a_checkpoint_is_saved(tmp_path, monkeypatch):
    flushed, real = [], os.fsync

    def record(descriptor):
        file = os.path.realpath(f"/proc/self/fd/{descriptor}")
        if file.endswith("metrics.jsonl"):  # the event file is flushed, too
            flushed.append(os.path.getsize(file))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    with MetricWriter(tmp_path) as writer:
        writer.scalars(1, {"loss": 0})
        writer.sync()
        assert flushed == [len((tmp_path / "metrics.jsonl").read_bytes())]
    writer.sync()  # closed, as in every process but the first
    assert len(flushed) == 1
