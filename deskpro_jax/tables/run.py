"""Runs the cells of an ablation: each in a process of its own, several side by side, one that fails stops no other."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from deskpro_jax.errors import Stopped
from deskpro_jax.runtime.cores import usable
from deskpro_jax.runtime.signals import SignalGuard
from deskpro_jax.storage.files import read_json, write_json
from deskpro_jax.tables.plan import Cell, read_scores, short_reason

TIMES = "times.json"  # seconds that each finished cell took, for the time that is left
_MOST_JOBS = 4  # unasked: each run of the paper's network takes some GB of memory
# Has a cell keep to its cores, and save and end when this process is killed, so that two never work in one folder:
# PR_SET_PDEATHSIG, which Linux alone has. In the cell's own process, for code between fork and exec may hang where jax
# runs threads.
_PREPARED = """
import contextlib, ctypes, os, signal, sys
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if sys.argv[1]:
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Halt:
    """What runs in other threads ask: whether to save and end, and whether to end at once."""

    def __init__(self, guard: SignalGuard) -> None:
        self.guard = guard
        self.abandoned = threading.Event()

    @property
    def requested(self) -> str | None:
        """Name of the signal that asked to stop."""
        return self.guard.requested


class _Running(NamedTuple):
    cell: Cell
    cores: Sequence[int]
    since: float


Runner = Callable[[Cell, Halt, Sequence[int]], str | None]  # runs a cell on some cores (() for all); why it failed


def usual_jobs() -> int:
    """Returns how many runs go side by side unless somebody says: one a core on CPUs, else one, which has all devices.

    A small network leaves most of a core idle while it waits for the others: two runs on a core each are faster than
    one after the other on both.
    """
    # In a process of its own: a backend that is opened here would keep an accelerator's memory from the runs.
    asked = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend())"], capture_output=True, text=True, check=False
    )
    return min(len(usable()), _MOST_JOBS) if asked.stdout.strip() == "cpu" else 1


def run_cell(cell: Cell, halt: Halt, cores: Sequence[int] = ()) -> str | None:
    """Runs a cell in a process of its own, whose memory goes with it; its output is shown and kept in `log.txt`.

    Args:
        cell: the cell.
        halt: passes on a signal, upon which the cell saves its state.
        cores: the CPU cores it keeps to, () for all.

    Returns:
        Why it failed, None where it did not.
    """
    command = [sys.executable, "-c", _PREPARED, ",".join(map(str, cores)), "-m", "deskpro_jax.main", *cell.flags]
    command.append(f"--workdir={cell.folder}")
    cell.folder.mkdir(parents=True, exist_ok=True)
    log = cell.folder / "log.txt"
    with log.open("a", encoding="utf-8") as file:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            close_fds=False,  # it holds the ablation's lock too
        )
        assert child.stdout is not None  # a pipe
        mark = f"{cell.row.name}/{cell.seed}: " if cores else ""
        reader = threading.Thread(target=_copy, args=(child.stdout, file, f"  {mark}"), daemon=True)
        reader.start()
        passed_on = False
        try:
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.5)
                if halt.abandoned.is_set():
                    child.kill()
                elif halt.requested and not passed_on:
                    child.send_signal(signal.SIGTERM)
                    passed_on = True
        except BaseException:
            child.kill()
            raise
        finally:
            reader.join()
            child.stdout.close()
            child.wait()
    if child.returncode < 0:
        return f"ended by {signal.Signals(-child.returncode).name}, see {log}"
    if child.returncode:
        return f"{short_reason(log.read_text(encoding='utf-8'))} (exit code {child.returncode}, see {log})"
    return None


def _copy(stream: IO[str], file: IO[str], mark: str) -> None:
    for line in stream:
        file.write(line)
        file.flush()
        print(f"{mark}{line.rstrip()}", file=sys.stderr)


def run_cells(cells: Sequence[Cell], folder: Path, run: Runner = run_cell, jobs: int = 1) -> dict[Cell, str]:
    """Runs the cells that have no results yet; one that fails stops only those that need it.

    Args:
        cells: in the order to run them.
        folder: of the ablation.
        run: runs one.
        jobs: how many at once; the cores are shared out between them.

    Returns:
        The cells that failed -> why.

    Raises:
        Stopped: on SIGTERM or Ctrl-C.
        InputError: a finished cell was run with another configuration.
    """
    times = {name: float(value) for name, value in (read_json(folder / TIMES) or {}).items()}
    waiting = [cell for cell in cells if read_scores(cell) is None]
    failed: dict[Cell, str] = {}
    if len(waiting) < len(cells):
        say(f"{len(cells) - len(waiting)} of {len(cells)} runs are finished already")
    free = _shares(jobs)
    running: dict[concurrent.futures.Future[str | None], _Running] = {}
    stopped: list[str] = []
    with SignalGuard() as guard, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        halt = Halt(guard)
        try:
            while waiting or running:
                while free and not guard.requested and (cell := _next(waiting, running.values(), failed)) is not None:
                    left = _time_left([*(r.cell for r in running.values()), cell, *waiting], times, jobs)
                    say(f"[{len(cells) - len(waiting)}/{len(cells)}] {cell.name}{left}")
                    cores = free.pop(0)
                    running[pool.submit(run, cell, halt, cores)] = _Running(cell, cores, time.monotonic())
                if not running:
                    break
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    ended = running.pop(future)
                    free.append(ended.cores)
                    reason = future.result()
                    if guard.requested:
                        stopped.append(ended.cell.name)
                        continue
                    reason = _finish(ended.cell, reason, folder, times, time.monotonic() - ended.since)
                    if reason is not None:
                        failed[ended.cell] = reason
        except BaseException:
            halt.abandoned.set()
            raise
        if guard.requested:
            where = f" in {' and '.join(stopped)}" if stopped else ""
            raise Stopped(f"{guard.requested}: stopped{where}; the same command goes on from there.")
    return failed


def _shares(jobs: int) -> list[Sequence[int]]:
    """Shares the cores out between runs side by side; a single run has no limit, ()."""
    cores = usable()
    if jobs == 1:
        return [()]
    if jobs >= len(cores):
        return [(cores[i % len(cores)],) for i in range(jobs)]
    return [cores[i * len(cores) // jobs : (i + 1) * len(cores) // jobs] for i in range(jobs)]


def _next(waiting: list[Cell], running: Iterable[_Running], failed: dict[Cell, str]) -> Cell | None:
    """Takes the first cell off `waiting` that has all it needs; those that never will are put with the failed ones."""
    coming = {under_way.cell for under_way in running}
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


def _finish(cell: Cell, reason: str | None, folder: Path, times: dict[str, float], seconds: float) -> str | None:
    """Notes and tells how a run ended; returns why it failed, None where it did not."""
    scores = None if reason is not None else read_scores(cell)
    if scores is None:
        reason = reason or "ended without results"
        say(f"{cell.name} failed: {reason}")
        return reason
    times[f"{cell.row.name}/{cell.seed}"] = seconds
    write_json(folder / TIMES, times)
    told = "; ".join(f"{name} mAP {100 * s['mAP']:.1f}, R-1 {100 * s['R-1']:.1f}" for name, s in scores.items())
    say(f"{cell.name}: {told}")
    return None


def _time_left(todo: Sequence[Cell], times: dict[str, float], jobs: int) -> str:
    """Returns about how long some cells take, by those that are finished: of the same row if there are any."""
    if not times:
        return ""
    by_row: dict[str, list[float]] = {}
    for name, seconds in times.items():
        by_row.setdefault(name.split("/")[0], []).append(seconds)
    mean = sum(times.values()) / len(times)
    each = {row: sum(values) / len(values) for row, values in by_row.items()}
    minutes = sum(each.get(cell.row.name, mean) for cell in todo) / 60 / jobs
    return f", about {minutes:.0f} min left" if minutes < 120 else f", about {minutes / 60:.1f} h left"


def say(text: str) -> None:
    """Tells how far the ablation is."""
    print(text, file=sys.stderr, flush=True)
