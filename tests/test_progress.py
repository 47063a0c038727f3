"""The progress line shows steps, loss terms, speed and time left."""

from __future__ import annotations

import io

import pytest
import rich.console

from deskpro_jax.runtime import progress
from deskpro_jax.runtime.progress import Progress


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


def test_an_evaluation_between_steps_counts_neither_for_speed_nor_for_time_left(monkeypatch):
    now, console = _clock(monkeypatch), _console(False)
    with Progress(40, "student", images_per_step=10, log_seconds=30, console=console) as progress:
        for _ in range(20):
            now[0] += 2.0
            progress.advance()
        with progress.paused():
            now[0] += 3600.0
        now[0] += 2.0
        progress.advance()
    lines = console.file.getvalue().splitlines()
    assert lines[-2:] == ["student  step 21/40 (52%)  5 images/s  0:38 left"] * 2


@pytest.mark.parametrize("terminal", [True, False])
def test_most_steps_draw_nothing(terminal, monkeypatch):
    now, drawn = _clock(monkeypatch), []
    with Progress(10_000, "x", log_seconds=0.1, console=_console(terminal)) as progress:
        monkeypatch.setattr(progress, "_show", lambda: drawn.append(now[0]))
        for _ in range(10_000):
            now[0] += 0.001
            progress.advance()
    assert 90 <= len(drawn) <= 101


def test_a_disabled_progress_shows_nothing():
    console = _console(False)
    with Progress(2, "x", console=console, enabled=False) as progress:
        progress.advance({"loss": 1.0})
    assert console.file.getvalue() == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_how_long_it_takes_is_said_once_as_soon_as_a_few_steps_are_measured(terminal, monkeypatch):
    now, console, asked = _clock(monkeypatch), _console(terminal), []

    def outlook(steps, seconds):
        asked.append((steps, seconds))
        return "about 3 min left"

    with Progress(100, "student", log_seconds=1e9, console=console, outlook=outlook) as progress:
        now[0] += 60.0  # the first step compiles
        for _ in range(10):
            progress.advance()
            now[0] += 2.0
    assert asked == [(95, 2.0)]
    assert console.file.getvalue().count("student  about 3 min left\n") == 1


def test_steps_that_are_too_few_or_too_fast_to_measure_say_nothing(monkeypatch):
    now, console = _clock(monkeypatch), _console(False)
    for seconds, steps in ((0.01, 50), (100.0, 3)):
        with Progress(100, "x", log_seconds=1e9, console=console, outlook=lambda *_: "wrong") as progress:
            for _ in range(steps):
                progress.advance()
                now[0] += seconds
    assert "wrong" not in console.file.getvalue()
