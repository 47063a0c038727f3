"""Runs races: starts each entrant's process, lets them take turns, collects what they measure."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.races import BEGAN, Entrant, Race, Settings
from benchmarks.results import METRICS, Measurement
from deskpro_jax.errors import RunError

_ROOT = Path(__file__).resolve().parent.parent


class Runner:
    """The process of one entrant."""

    def __init__(self, entrant: Entrant, settings: Settings, shared: bool):
        """Starts the process.

        Args:
            entrant: whom it runs.
            settings: of the command.
            shared: whether other entrants use the accelerators at the same time.
        """
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `end`)
        wanted = {
            "function": entrant.function,
            "arguments": dict(entrant.arguments),
            "threads": entrant.threads or settings.threads,
        }
        environment = {**os.environ, "PYTHONPATH": _python_path(), BEGAN: repr(time.time())}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # what is measured cold has to be cold
        if shared:
            environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )

    def ask(self) -> dict[str, Any]:
        """Lets the entrant prepare, or measure one repeat; returns its figures by metric.

        Raises:
            RunError: it failed.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process ended; the answer says why
            self._process.stdin.write("next\n")
            self._process.stdin.flush()
        return self._answer()

    def end(self) -> dict[str, Any]:
        """Ends the process; returns its last figures."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        answer = self._answer()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=20)
        return answer

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            why = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with exit code {code}"
            raise RunError(f"{why}{self._tail()}")
        answer = dict(json.loads(line))
        if "error" in answer:
            raise RunError(f"{answer['error']}{self._tail()}")
        return answer

    def _tail(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()[-12:]
        return "".join(f"\n    {line}" for line in lines)


def _python_path() -> str:
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(_ROOT), *([before] if before else [])])


def run_race(
    benchmark: str, race: Race, settings: Settings, tell: Callable[[str], None]
) -> tuple[list[Measurement], dict[str, str]]:
    """Runs a race; an entrant that fails leaves it, the others go on.

    Args:
        benchmark: which it belongs to.
        race: the entrants.
        settings: of the command.
        tell: is called with a line about what is going on.

    Returns:
        For each entrant and metric all samples: one of what the preparation tells, one a round of the rest; and
        entrant -> why it failed.

    Raises:
        RunError: entrants do not agree where they must.
    """
    running: dict[str, Runner] = {}
    samples: dict[tuple[str, str], list[float]] = {}
    failed: dict[str, str] = {}

    def take(name: str, what: Callable[[Runner], dict[str, Any]]) -> None:
        try:
            answer = what(running[name])
            if unknown := sorted(set(answer) - set(METRICS)):
                raise RunError(f"it gives the unknown metric {unknown[0]!r}")
        except RunError as error:
            failed[name] = str(error)
            running.pop(name).stop()
            tell(f"{benchmark}, {race.case}: {name} failed: {str(error).splitlines()[0]}")
            return
        for metric, value in answer.items():
            samples.setdefault((name, metric), []).append(float(value))

    try:
        for entrant in race.entrants:
            tell(f"{benchmark}, {race.case}: {entrant.name} prepares")
            running[entrant.name] = Runner(entrant, settings, shared=len(race.entrants) > 1)
            take(entrant.name, Runner.ask)
        _check_agreement(race, samples)
        for number in range(race.rounds):
            tell(f"{benchmark}, {race.case}: round {number + 1} of {race.rounds}")
            # The other way round every second time: nobody always follows the same entrant.
            for name in list(running) if number % 2 == 0 else list(running)[::-1]:
                take(name, Runner.ask)
        for name in list(running):
            take(name, Runner.end)
    finally:
        for runner in running.values():
            runner.stop()
    found = [
        Measurement(benchmark, race.case, name, metric, tuple(values))
        for (name, metric), values in samples.items()
        if name not in failed
    ]
    return found, failed


def _check_agreement(race: Race, samples: dict[tuple[str, str], list[float]]) -> None:
    for metric, tolerance in race.agree.items():
        values = {name: found[0] for (name, what), found in samples.items() if what == metric}
        if not values:
            continue
        low, high = min(values.values()), max(values.values())
        if high - low > tolerance * max(abs(low), abs(high)):
            listed = ", ".join(f"{name} {value:.7g}" for name, value in values.items())
            raise RunError(f"the entrants do not do the same work, {metric}: {listed}")
