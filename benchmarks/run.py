"""Measures this package: embedding, training, input, evaluation, re-ranking, checkpoints, dataset build.

    python -m benchmarks.run                                  # everything, with the images and networks of the paper
    python -m benchmarks.run embedding train --out now.json --plot now.png
    python -m benchmarks.run embedding --batches 8 --against before.json
    python -m benchmarks.run --quick                          # does everything run? seconds, figures mean nothing

Every entrant runs in a process of its own; those that are compared take turns. Where PyTorch is installed it takes
part in `embedding` and `train`. docs/benchmarks.md says what each figure is.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import rich.console

from benchmarks import machine, plot, registry, results, table
from benchmarks.arena import run_race
from benchmarks.races import OURS, Settings
from benchmarks.results import Measurement, Report
from deskpro_jax.errors import InputError, MissingInputError, RunError, exit_code
from deskpro_jax.runtime import cores
from deskpro_jax.storage.files import write_json

TORCH_FORMS = ("eager", "channels-last", "compiled", "compiled channels-last")
PHASES = ("stream", "teacher", "student")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs benchmarks, prints tables and writes what was measured; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        names = registry.chosen(options.names)
        against = results.read(options.against) if options.against else None
        _check_targets(options)
        with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.scratch) as scratch:
            settings = _settings(options, Path(scratch))
            report = measure(names, settings, lambda found: _write(found, options.out))
    except (InputError, MissingInputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    _write(report, options.out)
    if options.plot and report.measurements:
        plot.draw(report, options.plot)
    table.show(report, rich.console.Console(), against)
    for name, why in report.failures.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    return 1 if report.failures else 0


def measure(names: Sequence[str], settings: Settings, keep: Callable[[Report], None]) -> Report:
    """Runs benchmarks one after the other; a race that fails loses its own figures alone, an interrupt those to come.

    Args:
        names: of `registry.NAMES`.
        settings: of the command.
        keep: is called after each benchmark with all that was measured so far.
    """
    about = machine.describe()
    kept = dataclasses.asdict(settings) | {"names": list(names)}
    del kept["scratch"]
    measurements: list[Measurement] = []
    failures: dict[str, str] = {}

    def report() -> Report:
        now = about | {"load_after": machine.load()}
        ours = results.ratios(measurements, OURS)
        return Report(now, kept, tuple(measurements), ours, dict(failures), _notes(names, settings))

    for name in names:
        folder = settings.scratch / name
        folder.mkdir()
        try:
            _run(name, dataclasses.replace(settings, scratch=folder), measurements, failures)
        except KeyboardInterrupt:
            failures[name] = "interrupted"
            break
        shutil.rmtree(folder, ignore_errors=True)
        keep(report())
    return report()


def _run(name: str, settings: Settings, measurements: list[Measurement], failures: dict[str, str]) -> None:
    for race in registry.races(name, settings):
        try:
            found, failed = run_race(name, race, settings, _tell)
        except RunError as error:
            failures[f"{name}, {race.case}"] = str(error)
            continue
        failures |= {f"{name}, {race.case}, {entrant}": why for entrant, why in failed.items()}
        if not race.setup:
            measurements += found
        elif failed:
            break


def _write(report: Report, target: Path | None) -> None:
    if target is not None:
        write_json(target, results.to_json(report))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _notes(names: Sequence[str], settings: Settings) -> tuple[str, ...]:
    found = []
    if settings.threads > 0 and os.getloadavg()[0] > settings.threads + 1:
        found.append("Other work ran on this machine meanwhile (see the load): repeat it on an idle one.")
    if not settings.torch and {"embedding", "train"} & set(names):
        found.append("Without PyTorch: it is not installed, or --torch none was given.")
    elif settings.torch and not _compiler():
        found.append(
            "Without compiled PyTorch: torch.compile needs a C++ compiler, and there is no g++ or clang++ here."
        )
    return tuple(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=main.__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(registry.NAMES)} (default: the first 7)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where everything that was measured goes")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the main figures (.png, .svg or .pdf)")
    parser.add_argument("--against", type=Path, metavar="OTHER.json", help="compare with what --out wrote before")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images of evaluation, rerank, ... (1)")
    parser.add_argument("--repeats", type=int, help="rounds of each race (default: each benchmark's own)")
    parser.add_argument("--seconds", type=float, default=1.0, help="to repeat short calls for in a round (1)")
    parser.add_argument("--threads", type=int, help="processors to use (default: all)")
    parser.add_argument("--batches", default="1,8,32,128", help="of embedding (%(default)s)")
    parser.add_argument("--train-batch", type=int, default=8, help="images of a training step (%(default)s)")
    parser.add_argument("--phases", default=",".join(PHASES), help="training steps to measure (%(default)s)")
    parser.add_argument("--methods", default="", help="of the benchmark methods, with commas (default: all)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the networks")
    parser.add_argument(
        "--torch", default="all", metavar="FORMS", help=f"none, all, or of {', '.join(TORCH_FORMS)} with commas (all)"
    )
    parser.add_argument("--scratch", type=Path, help="folder for temporary files (default: the system's)")
    return parser


def _settings(options: argparse.Namespace, scratch: Path) -> Settings:
    allowed = cores.count()
    for flag, value in (("--repeats", options.repeats), ("--threads", options.threads)):
        if value is not None and value < 1:
            raise InputError(f"{flag} is {value}; expected at least 1.")
    if options.threads is not None and options.threads > allowed:
        raise InputError(f"--threads is {options.threads}; this process may use {allowed}.")
    if options.scale <= 0 or options.seconds < 0:
        raise InputError(f"--scale is {options.scale} and --seconds {options.seconds}; expected more than 0.")
    if options.train_batch < 4 or options.train_batch % 2:
        raise InputError(f"--train-batch is {options.train_batch}; expected an even number from 4 on.")
    return Settings(
        scratch,
        options.quick,
        options.scale,
        options.repeats,
        0.05 if options.quick else options.seconds,
        options.threads or allowed,
        _batches(options.batches),
        options.train_batch,
        _words("--phases", options.phases, PHASES),
        options.dtype,
        _torch_forms(options.torch),
        tuple(name for name in options.methods.split(",") if name),
    )


def _batches(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(size) for size in text.split(","))
        if min(found) < 1:
            raise ValueError
    except ValueError as error:
        raise InputError(f"--batches is {text!r}; expected numbers with commas, as 1,8,32.") from error
    return found


def _words(flag: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    found = tuple(word.strip() for word in text.split(","))
    for word in found:
        if word not in known:
            raise InputError(f"{flag} has {word!r}; expected one or more of {', '.join(known)}, with commas.")
    return found


def _torch_forms(text: str) -> tuple[str, ...]:
    forms = () if text == "none" else TORCH_FORMS if text == "all" else _words("--torch", text, TORCH_FORMS)
    if forms and importlib.util.find_spec("torch") is None:
        if text != "all":
            raise InputError(
                "--torch asks for PyTorch, which is not installed here: install it, or leave the flag out."
            )
        return ()
    return forms if _compiler() else tuple(form for form in forms if not form.startswith("compiled"))


def _compiler() -> str | None:
    """Returns the C++ compiler that torch.compile would use."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX") or "g++", "g++", "clang++"))), None)


def _check_targets(options: argparse.Namespace) -> None:
    """Refuses what would fail after hours of measuring."""
    for flag, path in (("--out", options.out), ("--plot", options.plot)):
        if path is not None and not path.absolute().parent.is_dir():
            raise MissingInputError(f"no folder {path.absolute().parent}: make it, or correct {flag}.")
    if options.scratch is not None and not options.scratch.is_dir():
        raise MissingInputError(f"no folder {options.scratch}: make it, or correct --scratch.")
    if options.plot is not None:
        plot.check(options.plot)


if __name__ == "__main__":
    sys.exit(main())
