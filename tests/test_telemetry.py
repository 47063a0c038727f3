"""Metric lines appear once a step whatever kills a run; the progress line tells speed and time left."""

from __future__ import annotations

import io
import json
import math
import time

import numpy as np
import pytest
import rich.console
from tensorboardX.proto.event_pb2 import Event

from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.results_table import ResultRow, results_markdown, results_table
from deskpro_jax.runtime import progress
from deskpro_jax.runtime.progress import Progress
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


def test_scalars_reach_both_files_at_once(tmp_path):
    before = time.time()
    writer = MetricWriter(tmp_path / "student")
    writer.scalars(20, {"loss": np.float32(2.5), "lr": 1e-3}, epoch=0.5)
    (line,) = _lines(tmp_path / "student")  # before close()
    assert before - 0.01 <= line.pop("time") <= time.time() + 0.01
    assert line == {"step": 20, "epoch": 0.5, "loss": 2.5, "lr": 1e-3}
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

    monkeypatch.setattr(metrics_file.os, "fsync", killed)
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


def _console(terminal):
    return rich.console.Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


def _clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_tell_steps_terms_speed_and_time_left(monkeypatch):
    now, console = _clock(monkeypatch), _console(False)
    with Progress(100, "student", start=10, images_per_step=30, log_seconds=30, console=console) as progress:
        now[0] += 60.0
        progress.advance()  # the first step compiles for a minute: a line, but no speed yet
        for _ in range(20):
            now[0] += 2.0
            progress.advance({"loss": 3.25, "triplet [raw]": 0.5})
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "student  step 11/100 (11%)"
    assert lines[1] == "student  step 26/100 (26%)  loss 3.25  triplet [raw] 0.5  15 images/s  2:28 left"
    assert lines[2].startswith("student  step 31/100 (31%)")
    assert len(lines) == 3


def test_the_speed_shown_is_that_of_the_last_half_minute(monkeypatch):
    now, console = _clock(monkeypatch), _console(False)
    with Progress(1000, "student", images_per_step=10, log_seconds=1e9, console=console) as progress:
        for seconds in [10.0] * 20 + [1.0] * 60:
            now[0] += seconds
            progress.advance()
    assert "10 images/s  15:20 left" in console.file.getvalue()


def test_a_terminal_gets_one_bar(monkeypatch):
    console = _console(True)
    with Progress(4, "teacher", console=console) as progress:
        for step in range(4):
            progress.advance({"loss": float(step)})
    shown = console.file.getvalue()
    assert "teacher" in shown
    assert "4/4" in shown
    assert "loss 3" in shown
    assert "step 4/4" not in shown


def test_a_step_costs_little(monkeypatch):
    for terminal in (True, False):
        with Progress(10_000, "x", console=_console(terminal)) as progress:
            start = time.perf_counter()
            for _ in range(10_000):
                progress.advance()
            assert (time.perf_counter() - start) / 10_000 < 100e-6


def test_a_disabled_progress_shows_nothing():
    console = _console(False)
    with Progress(2, "x", console=console, enabled=False) as progress:
        progress.advance({"loss": 1.0})
    assert console.file.getvalue() == ""


ROWS = [
    ResultRow("cross-clothes", "both", 0.51234, {"R-1": 0.6, "R-5": 0.75, "R-10": 0.8, "R-20": 1.0}, 40, 2),
    ResultRow("general", "face", math.nan, {}, 0, 42),
    ResultRow("single-shot", "body", 0.5, {"R-1": 0.25}, 7, 0, {"mAP": 0.012, "R-1": 0.0}),
]


def test_results_as_markdown():
    assert results_markdown(ROWS).splitlines() == [
        "| protocol | stream | mAP | R-1 | R-5 | R-10 | R-20 | counted | dropped |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| cross-clothes | both | 51.2 | 60.0 | 75.0 | 80.0 | 100.0 | 40 | 2 |",
        "| general | face | - | - | - | - | - | 0 | 42 |",
        "| single-shot | body | 50.0 ± 1.2 | 25.0 ± 0.0 | - | - | - | 7 | 0 |",
    ]


def test_results_on_the_terminal():
    console = _console(False)
    console.print(results_table(ROWS, title="synthetic_small"))
    shown = console.file.getvalue()
    assert "synthetic_small" in shown
    row = next(line for line in shown.splitlines() if "cross-clothes" in line)
    assert row.replace("│", " ").split() == [
        "cross-clothes",
        "both",
        "51.2",
        "60.0",
        "75.0",
        "80.0",
        "100.0",
        "40",
        "2",
    ]
