"""Runs the cells of a table, each as a process of its own, several side by side; one that fails stops no other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from deskpro_jax.errors import Stopped
from deskpro_jax.evaluation.results_table import map_name
from deskpro_jax.runtime.cores import usable
from deskpro_jax.runtime.signals import SignalGuard
from deskpro_jax.storage.files import read_json, write_json
from deskpro_jax.tables.plan import Cell, read_scores, short_reason

LOG = "log.txt"  # in the folder of a cell: what its process printed
TIMES = "times.json"  # in the folder of the table: seconds that each finished cell took, to estimate the remaining time
_MOST_JOBS = 4  # by default: each run of the paper's network takes some GB of memory
_POLL_SECONDS = 0.2


class Process(Protocol):
    """The process of a cell: `subprocess.Popen`, as far as it is used here."""

    def poll(self) -> int | None:
        """Returns the exit code, None while the process runs."""
        ...

    def terminate(self) -> None:
        """Sends SIGTERM, upon which a run saves its state and ends."""
        ...

    def kill(self) -> None:
        """Ends the process at once."""
        ...


class _Running(NamedTuple):
    cell: Cell
    process: Process
    cores: Sequence[int]
    since: float
    log: IO[str]


Start = Callable[[Cell, Sequence[int]], Process]  # starts a cell on some cores, () for all


def default_jobs() -> int:
    """Returns how many runs go side by side by default: one per core on CPUs, otherwise one, which has all devices.

    A small network leaves most of a core idle while it waits for other cores: two runs on a core each are faster than
    one after the other on both.
    """
    # In a process of its own: a backend that is opened here would keep an accelerator's memory from the runs.
    backend = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend())"], capture_output=True, text=True, check=False
    )
    return min(len(usable()), _MOST_JOBS) if backend.stdout.strip() == "cpu" else 1


def start_cell(cell: Cell, cores: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Starts the training of a cell; its output goes to `log.txt` in its folder.

    Args:
        cell: the cell.
        cores: the CPU cores that it uses, () for all.
    """
    command = [sys.executable, "-m", "deskpro_jax.main", *cell.flags, f"--workdir={cell.folder}"]
    with (cell.folder / LOG).open("ab") as log:
        # It inherits the lock of the table's folder: a run that outlives this process keeps others out until it ends.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, close_fds=False)
    if cores:
        with contextlib.suppress(OSError, AttributeError):  # not every system can
            os.sched_setaffinity(process.pid, cores)
    return process


def run_cells(cells: Sequence[Cell], folder: Path, jobs: int = 1, start: Start = start_cell) -> dict[Cell, str]:
    """Runs the cells that have no results yet; one that fails stops only those that need it.

    Args:
        cells: in the order to run them.
        folder: of the table.
        jobs: how many at once; they share the cores.
        start: starts one.

    Returns:
        The cells that failed -> reason.

    Raises:
        Stopped: on SIGTERM or Ctrl-C, after the runs have saved their state.
        InputError: a finished cell was run with another configuration.
    """
    times = {name: float(value) for name, value in (read_json(folder / TIMES) or {}).items()}
    waiting = [cell for cell in cells if read_scores(cell) is None]
    if len(waiting) < len(cells):
        say(f"{len(cells) - len(waiting)} of {len(cells)} runs are finished already")
    free, running, stopped = _divide_cores(jobs), list[_Running](), list[str]()
    failed: dict[Cell, str] = {}
    with SignalGuard() as guard:
        try:
            while True:
                under_way = [run.cell for run in running]
                while free and not guard.requested and (cell := _next(waiting, under_way, failed)) is not None:
                    left = _time_left([*under_way, cell, *waiting], times, jobs)
                    say(f"[{len(cells) - len(waiting)}/{len(cells)}] {cell.name}{left}")
                    running.append(_start(cell, free.pop(0), start))
                    under_way.append(cell)
                if not running:
                    break
                _wait(running, guard)
                for run in [run for run in running if run.process.poll() is not None]:
                    running.remove(run)
                    free.append(run.cores)
                    run.log.close()
                    if guard.requested:
                        stopped.append(run.cell.name)
                    elif reason := _finish(run, folder, times):
                        failed[run.cell] = reason
        finally:
            for run in running:  # only after an error or a second Ctrl-C
                run.process.kill()
                run.log.close()
        if guard.requested:
            where = f" in {' and '.join(stopped)}" if stopped else ""
            raise Stopped(f"{guard.requested}: stopped{where}; the same command continues from there.")
    return failed


def _start(cell: Cell, cores: Sequence[int], start: Start) -> _Running:
    cell.folder.mkdir(parents=True, exist_ok=True)
    path = cell.folder / LOG
    path.touch()
    printed_before = path.stat().st_size
    process = start(cell, cores)
    log = path.open(encoding="utf-8", errors="replace")
    log.seek(printed_before)
    return _Running(cell, process, cores, time.monotonic(), log)


def _wait(running: Sequence[_Running], guard: SignalGuard) -> None:
    """Waits until a run ends, showing what all of them print; passes a signal on."""
    passed_on = False
    while True:
        ended = any(run.process.poll() is not None for run in running)
        for run in running:
            mark = f"{run.cell.row.name}/{run.cell.seed}: " if run.cores else ""
            for line in run.log:
                print(f"  {mark}{line.rstrip()}", file=sys.stderr)
        if ended:
            return
        if guard.requested and not passed_on:
            for run in running:
                run.process.terminate()
            passed_on = True
        time.sleep(_POLL_SECONDS)


def _divide_cores(jobs: int) -> list[Sequence[int]]:
    """Divides the cores between runs side by side; a single run uses all, ()."""
    cores = usable()
    if jobs == 1:
        return [()]
    if jobs >= len(cores):
        return [(cores[i % len(cores)],) for i in range(jobs)]
    return [cores[i * len(cores) // jobs : (i + 1) * len(cores) // jobs] for i in range(jobs)]


def _next(waiting: list[Cell], under_way: Sequence[Cell], failed: dict[Cell, str]) -> Cell | None:
    """Takes the first cell off `waiting` that has all it needs; those that never will are added to the failed ones."""
    coming = set(under_way)
    for cell in tuple(waiting):
        if any(need in coming for need in cell.needs):
            coming.add(cell)
            continue
        waiting.remove(cell)
        lacking = [need for need in cell.needs if read_scores(need) is None]
        if not lacking:
            return cell
        failed[cell] = f"{lacking[0].name}, which it needs, is not finished"
    return None


def _finish(run: _Running, folder: Path, times: dict[str, float]) -> str | None:
    """Records and reports how a run ended; returns the reason of a failure, None otherwise."""
    cell, code = run.cell, run.process.poll()
    log = cell.folder / LOG
    scores = None if code else read_scores(cell)
    if scores is None:
        reason = "ended without results"
        if code is not None and code < 0:
            reason = f"ended by {signal.Signals(-code).name}, see {log}"
        elif code:
            reason = f"{short_reason(log.read_text(encoding='utf-8', errors='replace'))} (exit code {code}, see {log})"
        say(f"{cell.name} failed: {reason}")
        return reason
    times[f"{cell.row.name}/{cell.seed}"] = time.monotonic() - run.since
    write_json(folder / TIMES, times)
    precision = map_name(cell.config.get("eval.average_precision", "step"))
    results = [f"{name} {precision} {100 * s['mAP']:.1f}, R-1 {100 * s['R-1']:.1f}" for name, s in scores.items()]
    say(f"{cell.name}: {'; '.join(results)}")
    return None


def was_refused(reason: str) -> bool:
    """Returns whether a run that failed for `reason` refused its input (exit code 2), and would again."""
    return "(exit code 2, see " in reason


def _time_left(todo: Sequence[Cell], times: dict[str, float], jobs: int) -> str:
    """Returns about how long some cells take, from finished ones: of the same row if there are any."""
    if not times:
        return ""
    by_row: dict[str, list[float]] = {}
    for name, seconds in times.items():
        by_row.setdefault(name.split("/")[0], []).append(seconds)
    mean = sum(times.values()) / len(times)
    means = {row: sum(values) / len(values) for row, values in by_row.items()}
    minutes = sum(means.get(cell.row.name, mean) for cell in todo) / 60 / jobs
    return f", about {minutes:.0f} min left" if minutes < 120 else f", about {minutes / 60:.1f} h left"


def say(text: str) -> None:
    """Prints a line about the progress of the table."""
    print(text, file=sys.stderr, flush=True)
