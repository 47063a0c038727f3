"""Kills a run again and again, at every kind of moment, and compares what it ends with to a run that nobody disturbed.

python -m benchmarks.soak --cycles 24 --out soak
python -m benchmarks.soak --out soak --set teacher.epochs=4 --set data.workers=2
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.same_run import compare, progress
from deskpro_jax.errors import InputError, MissingInputError, RunError, exit_code
from deskpro_jax.storage import files

ROOT = Path(__file__).parents[1]
CONFIG = "configs/synthetic.py:face_fkp,debug"  # both phases, one narrow stream each
SETTINGS = ("eval.baselines=False", "eval.every=1")
COMMAND = (sys.executable, "-m", "deskpro_jax.main")
_POLL = 0.02  # seconds between two looks at how far the run is
_LATE = 0.5  # seconds at most from the step that a kill waits for to the kill: saving, scoring, the next steps
_PATIENCE = 1800.0  # seconds without an end or a new step, after which a run counts as hung


class Kill(NamedTuple):
    """One cycle: what was sent when, and how the process ended."""

    signal: str
    step: int  # steps of both phases together that were written when it was sent
    startup: bool  # sent at a drawn time before the first new step, or at that step
    seconds: float  # from the signal to the end of the process
    code: int


class Soak(NamedTuple):
    """What came of it.

    Attributes:
        kills: one a cycle, in order.
        finished: whether the run came to its end before all cycles were done.
        differences: what differs from the undisturbed run, nothing when all is the same.
        compared: how many arrays and metric lines were compared.
    """

    kills: list[Kill]
    finished: bool
    differences: list[str]
    compared: dict[str, int]


def _start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, env=dict(environment), stdout=file, stderr=subprocess.STDOUT)


def _finish(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    process = _start(command, log, environment)
    if process.wait():
        raise RunError(f"a run ended with exit code {process.returncode}: {log} says why")


def _disturb(
    command: Sequence[str],
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
    target: int,
    startup: float | None,
    name: str,
    late: float,
) -> Kill | None:
    """Runs the command and sends it a signal; None when it came to its end before.

    Args:
        command: the run.
        folder: its workdir.
        log: gets its output.
        environment: of the process.
        target: steps of both phases together to wait for.
        startup: seconds after the start to kill at, or at the first new step if that comes before; None waits for
            the target.
        name: of the signal.
        late: seconds between the step and the signal.
    """
    process = _start(command, log, environment)
    begun = moved = time.monotonic()
    seen, under_way = progress(folder), False
    try:
        while process.poll() is None:
            now, step = time.monotonic(), progress(folder)
            if step != seen:  # less, where lines after the last checkpoint were dropped
                seen, moved, under_way = step, now, True
            if startup is not None and (under_way or now - begun >= startup):
                break
            if startup is None and under_way and step >= target:
                time.sleep(late)
                break
            if now - moved > _PATIENCE:
                raise RunError(f"the run made no step for {_PATIENCE:.0f} s: {log} shows how far it came")
            time.sleep(_POLL)
        if process.poll() is not None:
            if process.returncode:
                raise RunError(f"undisturbed, the run ended with exit code {process.returncode}: {log} says why")
            return None
        sent = time.monotonic()
        process.send_signal(signal.Signals[name])
        code = process.wait(_PATIENCE)
        return Kill(name, progress(folder), startup is not None, time.monotonic() - sent, code)
    finally:
        process.kill()


def soak(
    out: Path,
    cycles: int,
    *,
    arguments: Sequence[str],
    command: Sequence[str] = COMMAND,
    reference: Path | None = None,
    seed: int = 0,
) -> Soak:
    """Runs a configuration undisturbed and disturbed, and compares the two workdirs.

    Args:
        out: gets `reference/`, `disturbed/`, their logs and the compilation cache; must not have been used before.
        cycles: how often the second run is killed.
        arguments: of the command, without `--workdir`.
        command: what runs.
        reference: the workdir of an undisturbed run that is there already; None runs one.
        seed: decides moments and signals.

    Raises:
        InputError: `out` has a disturbed run in it.
        RunError: a run failed, or hangs.
    """
    folder = out / "disturbed"
    if folder.exists():
        raise InputError(f"{folder} is there already: give a new folder with --out.")
    out.mkdir(parents=True, exist_ok=True)
    cache = {"JAX_COMPILATION_CACHE_DIR": str((out / "xla_cache").absolute())}
    # Restarts are as quick as can be: programs of any size are kept.
    cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment = {**cache, **os.environ}
    if reference is None:
        reference = out / "reference"
        _finish([*command, *arguments, f"--workdir={reference.absolute()}"], out / "reference.log", environment)
    total = progress(reference)
    rng = random.Random(seed)
    kills: list[Kill] = []
    wanted = [*command, *arguments, f"--workdir={folder.absolute()}"]
    finished, quick = False, 10.0
    for cycle in range(cycles):
        name = rng.choice(("SIGKILL", "SIGTERM"))
        startup = rng.uniform(0.5, quick) if rng.random() < 0.2 else None
        target = max(1, round(total * (cycle + rng.random()) / cycles))
        kill = _disturb(
            wanted, folder, out / "disturbed.log", environment, target, startup, name, rng.uniform(0, _LATE)
        )
        if kill is None:
            finished = True
            break
        kills.append(kill)
        print(f"cycle {cycle + 1} of {cycles}: {_told(kill, total)}", flush=True)
    _finish(wanted, out / "disturbed.log", environment)
    return Soak(kills, finished, *compare(folder, reference))


def _told(kill: Kill, total: int) -> str:
    moment = "while starting" if kill.startup else f"at step {kill.step} of {total}"
    return f"{kill.signal} {moment}, exit code {kill.code} after {kill.seconds:.1f} s"


def faults(found: Soak) -> list[str]:
    """Returns what is wrong with a soak: differences, and a SIGTERM that did not end in exit code 0.

    A process that has not begun to work yet may die of SIGTERM as any process does.
    """
    codes = [
        f"{kill.signal} at step {kill.step} ended in exit code {kill.code}"
        for kill in found.kills
        if kill.signal == "SIGTERM" and kill.code != 0 and not (kill.startup and kill.code == -signal.SIGTERM)
    ]
    return [*codes, *found.differences]


def main(arguments: Sequence[str] | None = None) -> int:
    """Kills a debug run again and again and compares its end with that of an undisturbed one; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="new folder for both runs and soak.json")
    parser.add_argument("--cycles", type=int, default=24, help="how often the run is killed (default: 24)")
    parser.add_argument("--seed", type=int, default=0, help="decides moments and signals (default: 0)")
    parser.add_argument("--config", default=CONFIG, help=f"configuration (default: {CONFIG})")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the configuration")
    parser.add_argument("--reference", type=Path, help="workdir of an undisturbed run of the same configuration")
    options = parser.parse_args(arguments)
    epochs = 2 + options.cycles // 8  # of each phase; in fewer the run ends before all kills are done
    lengths = (f"teacher.epochs={epochs}", f"train.epochs={epochs}")
    settings = [f"--config.{setting}" for setting in (*SETTINGS, *lengths, *options.set)]
    data = options.out.absolute() / "data"
    try:
        if options.cycles < 1:
            raise InputError(f"--cycles is {options.cycles}; expected at least 1.")
        given = [f"--config={options.config}", f"--config.data.data_dir={data}", *settings]
        found = soak(options.out, options.cycles, arguments=given, reference=options.reference, seed=options.seed)
    except (InputError, MissingInputError, RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    wrong = faults(found)
    record = {
        "cycles": [kill._asdict() for kill in found.kills],
        "finished": found.finished,
        "compared": found.compared,
        "faults": wrong,
        "config": options.config,
        "settings": settings,
        "seed": options.seed,
    }
    files.write_json(options.out / "soak.json", record)
    sent = Counter(kill.signal for kill in found.kills)
    slowest = max((kill.seconds for kill in found.kills if kill.signal == "SIGTERM"), default=0.0)
    compared = ", ".join(f"{count} {what}" for what, count in found.compared.items())
    print(f"{len(found.kills)} cycles ({', '.join(f'{n} {name}' for name, n in sorted(sent.items()))}), ", end="")
    print(f"SIGTERM ended in {slowest:.1f} s at most; compared {compared}")
    for fault in wrong:
        print(f"fault: {fault}", file=sys.stderr)
    print("the same to the last bit" if not wrong else f"{len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
