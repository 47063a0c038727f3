"""What some steps took is scaled to all that a run has left."""

from __future__ import annotations

import pytest

from deskpro_jax.runtime import time_left
from deskpro_jax.runtime.time_left import Outlook, Work, remaining

TEACHER = Work("teacher", step=3.0, program=3.0, steps=100, beside=30.0, programs_beside=1.0)
STUDENT = Work("student", step=7.0, program=7.0, steps=200, beside=70.0, programs_beside=2.0)
EVALUATION = Work("evaluation", step=0.0, program=2.0, steps=0, beside=50.0)


def test_what_is_left_is_measured_steps_evaluations_and_compilations() -> None:
    # A step of three units takes 6 s, so that a unit is 2 s; compiling three takes 30 s, so that one is 10 s.
    left = remaining((TEACHER, STUDENT, EVALUATION), 40, 6.0, 30.0)
    assert left == pytest.approx(
        {
            "teacher": 40 * 6 + 30 * 2 + 10,  # its step is compiled
            "student": 200 * 14 + 70 * 2 + 90,
            "evaluation": 50 * 2 + 20,
        }
    )


def test_a_phase_that_is_measured_itself_corrects_the_estimate() -> None:
    assert remaining((STUDENT, EVALUATION), 200, 10.0, 0.0)["student"] == pytest.approx(2000 + 70 * 10 / 7)


def test_the_sentence_has_the_whole_and_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 130.0])
    monkeypatch.setattr(time_left.time, "monotonic", lambda: next(clock))
    outlook = Outlook((TEACHER, STUDENT, EVALUATION))
    with outlook.compiling():
        pass
    assert outlook(40, 6.0) == ("about 58 min left on this machine (teacher 5 min, student 50 min, evaluation 2 min)")
    assert Outlook()(40, 6.0) == ""


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "5 s"), (33, "35 s"), (58, "1 min"), (400, "7 min"), (8000, "2.2 h"), (400_000, "4.6 days")],
)
def test_an_estimate_has_few_digits(seconds: float, shown: str) -> None:
    assert Outlook((Work("all", 1.0, 1.0, 1),))(1, seconds).startswith(f"about {shown} left")
