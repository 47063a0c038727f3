"""Command line: trains and scores the rows of the paper's Table 3 with several seeds, and writes the table.

python -m deskpro_jax.ablate --config configs/synthetic.py --seeds 3 --workdir runs/ablation
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from deskpro_jax.ablation import ROWS, Cell, choose_rows, plan_cells, read_scores, short_reason
from deskpro_jax.ablation_table import check_claims, latex, markdown
from deskpro_jax.commands import command_parser
from deskpro_jax.errors import MissingInputError, RunError, Stopped, end_command
from deskpro_jax.model_flags import positive
from deskpro_jax.preemption import SignalGuard
from deskpro_jax.workdir import read_json, write_json, write_text

TIMES = "times.json"  # seconds that each finished cell took, for the time that is left
_TABLE = "ablation"
_LOCK_SECONDS = 20.0  # a run that was killed leaves a cell that still saves
# Has a cell save and end when this process is killed, so that two never work in one folder: PR_SET_PDEATHSIG, which
# Linux alone has. In the cell's own process, for code between fork and exec may hang where jax runs threads.
_END_WITH_PARENT = """
import contextlib, ctypes, os, signal, sys
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

Runner = Callable[[Cell, SignalGuard], str | None]  # runs a cell; returns why it failed


def run_cell(cell: Cell, guard: SignalGuard) -> str | None:
    """Runs a cell in a process of its own, whose memory goes with it; its output is shown and kept in `log.txt`.

    Args:
        cell: the cell.
        guard: passes on a signal, upon which the cell saves its state.

    Returns:
        Why it failed, None where it did not.
    """
    command = [sys.executable, "-c", _END_WITH_PARENT, "-m", "deskpro_jax.main", *cell.flags]
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
            close_fds=False,  # it holds the lock of `_alone` too
        )
        assert child.stdout is not None  # a pipe
        reader = threading.Thread(target=_copy, args=(child.stdout, file), daemon=True)
        reader.start()
        passed_on = False
        try:
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.5)
                if guard.requested and not passed_on:
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


def _copy(stream: IO[str], file: IO[str]) -> None:
    for line in stream:
        file.write(line)
        file.flush()
        print(f"  {line.rstrip()}", file=sys.stderr)


def run_cells(cells: Sequence[Cell], folder: Path, run: Runner = run_cell) -> dict[Cell, str]:
    """Runs the cells that have no results yet; one that fails does not stop the others.

    Args:
        cells: in the order to run them.
        folder: of the ablation.
        run: runs one.

    Returns:
        The cells that failed -> why.

    Raises:
        Stopped: on SIGTERM or Ctrl-C.
        InputError: a finished cell was run with another configuration.
    """
    times = {name: float(value) for name, value in (read_json(folder / TIMES) or {}).items()}
    todo = [cell for cell in cells if read_scores(cell) is None]
    failed: dict[Cell, str] = {}
    if len(todo) < len(cells):
        _say(f"{len(cells) - len(todo)} of {len(cells)} runs are finished already")
    with SignalGuard() as guard:
        for number, cell in enumerate(todo):
            if cell.needs is not None and read_scores(cell.needs) is None:
                failed[cell] = f"has no teacher: {cell.needs.name} is not finished"
                continue
            left = _time_left(todo[number:], times)
            _say(f"[{len(cells) - len(todo) + number + 1}/{len(cells)}] {cell.name}{left}")
            begun = time.monotonic()
            reason = run(cell, guard)
            if guard.requested:
                raise Stopped(f"{guard.requested}: stopped in {cell.name}; the same command goes on from there.")
            if reason is None and (scores := read_scores(cell)) is None:
                reason = "ended without results"
            if reason is not None:
                failed[cell] = reason
                _say(f"{cell.name} failed: {reason}")
                continue
            times[f"{cell.row.name}/{cell.seed}"] = time.monotonic() - begun
            write_json(folder / TIMES, times)
            assert scores is not None  # looked at above
            told = "; ".join(f"{name} mAP {100 * s['mAP']:.1f}, R-1 {100 * s['R-1']:.1f}" for name, s in scores.items())
            _say(f"{cell.name}: {told}")
    return failed


def _time_left(todo: Sequence[Cell], times: dict[str, float]) -> str:
    """Returns about how long some cells take, by those that are finished: of the same row if there are any."""
    if not times:
        return ""
    by_row: dict[str, list[float]] = {}
    for name, seconds in times.items():
        by_row.setdefault(name.split("/")[0], []).append(seconds)
    mean = sum(times.values()) / len(times)
    each = {row: sum(values) / len(values) for row, values in by_row.items()}
    minutes = sum(each.get(cell.row.name, mean) for cell in todo) / 60
    return f", about {minutes:.0f} min left" if minutes < 120 else f", about {minutes / 60:.1f} h left"


def write_table(cells: Sequence[Cell], stem: Path, title: str) -> list[str]:
    """Writes the table of the finished cells as `STEM.md` and `STEM.tex`; returns whether the paper's findings hold."""
    scores = {cell: found for cell in cells if (found := read_scores(cell)) is not None}
    write_text(stem.with_name(f"{stem.name}.md"), markdown(cells, scores, title))
    write_text(stem.with_name(f"{stem.name}.tex"), latex(cells, scores, title))
    return check_claims(scores)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second ablation out of a folder.

    Raises:
        RunError: one is at work there.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(descriptor, True)  # a cell that outlives this process keeps others out until it has saved
    try:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise RunError(f"another process is at work in {folder}: wait for it, or end it.") from None
                time.sleep(0.5)
        yield
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rows of the paper's Table 3 and writes the table; returns the exit code."""
    parser = command_parser("ablate", main.__doc__)
    parser.allow_abbrev = False  # --config.FIELD=VALUE is no flag of this parser
    parser.add_argument(
        "--config",
        required=True,
        help="configuration, with ':variant' if wanted; --config.FIELD=VALUE sets a field for all runs",
    )
    parser.add_argument("--workdir", required=True, type=Path, help="folder; each run's workdir is ROW/SEED in it")
    parser.add_argument("--seeds", type=positive, default=3, help="how many, from the configuration's on (default: 3)")
    parser.add_argument(
        "--rows",
        default=",".join(row.name for row in ROWS),
        help="some of %(default)s, joined by commas (default: all)",
    )
    parser.add_argument("--out", type=Path, help="table's name without ending (default: WORKDIR/ablation)")
    options, more = parser.parse_known_args(arguments)
    if strange := [flag for flag in more if not (flag.startswith("--config.") and "=" in flag)]:
        print(f"error: unknown argument {strange[0]!r}; fields are set as --config.FIELD=VALUE.", file=sys.stderr)
        return 2
    return end_command(lambda: _run(options, more), "interrupted; the same command goes on from there.")


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    stem = options.workdir / _TABLE if options.out is None else options.out
    if options.out is not None and not stem.absolute().parent.is_dir():
        raise MissingInputError(f"no folder {stem.absolute().parent}: make it, or correct --out.")
    if stem.suffix in (".md", ".tex"):
        stem = stem.with_suffix("")
    rows = choose_rows([name.strip() for name in options.rows.split(",") if name.strip()])
    cells, notes = plan_cells(options.config, overrides, rows, options.seeds, options.workdir)
    for note in notes:
        _say(f"note: {note}")
    options.workdir.mkdir(parents=True, exist_ok=True)
    title = f"Ablation: {' '.join([options.config, *overrides])}"
    with _alone(options.workdir):
        try:
            failed = run_cells(cells, options.workdir)
        finally:
            findings = write_table(cells, stem, title)
    print((stem.with_name(f"{stem.name}.md")).read_text(encoding="utf-8"), end="")
    untold = "" if findings else "; these rows say nothing about the paper's findings"
    _say(f"written: {stem}.md, {stem}.tex{untold}")
    if failed:
        print(f"error: {len(failed)} of {len(cells)} runs failed; the same command tries them again:", file=sys.stderr)
        for cell, reason in failed.items():
            print(f"  {cell.name}: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
