"""How long the remainder of a run takes: seconds that some of its work took, scaled to all that is left."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence


@dataclasses.dataclass(frozen=True)
class Work:
    """A part of a run, in units that are only compared with one another.

    Attributes:
        name: of the part.
        step: work of one of its steps.
        program: work of compiling a step.
        steps: steps that are left.
        beside: work beside the steps, as of evaluations, in the unit of `step`.
        programs_beside: work of compiling that, in the unit of `program`.
    """

    name: str
    step: float
    program: float
    steps: int
    beside: float = 0.0
    programs_beside: float = 0.0


def remaining(work: Sequence[Work], steps: int, step_seconds: float, compile_seconds: float) -> dict[str, float]:
    """Returns the seconds that the parts of a run still take, by name.

    Args:
        work: the part under way, whose step is compiled, and those that follow.
        steps: steps of the part under way that are left.
        step_seconds: what one of them takes.
        compile_seconds: what compiling it took.
    """
    first = work[0]
    unit, program = step_seconds / first.step, compile_seconds / first.program
    left = (dataclasses.replace(first, steps=steps, program=0.0), *work[1:])
    return {
        part.name: unit * (part.steps * part.step + part.beside) + program * (part.program + part.programs_beside)
        for part in left
    }


class Outlook:
    """Says how long a run still takes, from the first steps that a part of it takes."""

    def __init__(self, work: Sequence[Work] = ()):
        """Takes what has to be done.

        Args:
            work: of the part under way and of those that follow; () says nothing.
        """
        self._work, self._compile_seconds = tuple(work), 0.0

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Measures the block, in which a step is compiled."""
        begin = time.monotonic()
        yield
        self._compile_seconds = time.monotonic() - begin

    def __call__(self, steps: int, step_seconds: float) -> str:
        """Returns a sentence for people, "" where the work is not known; arguments as of `remaining`."""
        if not self._work:
            return ""
        seconds = remaining(self._work, steps, step_seconds, self._compile_seconds)
        parts = ", ".join(f"{name} {_rounded(value)}" for name, value in seconds.items())
        return f"about {_rounded(sum(seconds.values()))} left on this machine ({parts})"


def _rounded(seconds: float) -> str:
    """Returns a duration with as many digits as an estimate deserves."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
