"""Times one network served three ways: flax under XLA, the StableHLO file in jax, the ONNX file in onnxruntime.

    python -m benchmarks.serving                        # OSNet x1_0 body stream, 384 x 128, random weights
    python -m benchmarks.serving --workdir runs/celeb   # what a workdir embeds with
    python -m benchmarks.run serving                    # the default, taking turns, in one report

Each way runs in a process of its own. "cold" is from its start to the first embedding of one image: imports, reading
the file, compiling (without a cache of compiled programs). Throughput is the best of several calls of one batch, after
two that do not count; uint8 images go in, and none is mirrored.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.races import BEGAN, Entrant, Race, Settings
from benchmarks.timing import rate_and_latency
from deskpro_jax.storage.files import require_json

WAYS = ("XLA", "StableHLO", "ONNX")
_FILES = {"XLA": "", "StableHLO": "served.stablehlo", "ONNX": "served.onnx"}


def make_workdir(folder: Path, backbone: str) -> None:
    """Writes a workdir with a body stream of random weights."""
    import jax
    import jax.numpy as jnp

    from deskpro_jax.checkpoints.store import CheckpointStore
    from deskpro_jax.configs import base
    from deskpro_jax.weights.families import Stream
    from deskpro_jax.weights.load import initial_variables

    variables = initial_variables(Stream("body", "", backbone, "paper", 512, 1), "abcd", 0)
    state = {collection: {"body_stream": jax.tree.map(jnp.asarray, tree)} for collection, tree in variables.items()}
    with CheckpointStore(folder / "student" / "checkpoints", best_metric=None, asynchronous=False) as store:
        store.save(0, state, data={}, wait=True)
    config = base.get_config()
    config.model.backbone, config.model.face = backbone, "none"
    (folder / "config.json").write_text(config.to_json_best_effort())


def _flax(workdir: Path, files: Path) -> Callable[..., Any]:
    import jax

    from deskpro_jax.serving.program import embedding_function, read_program

    jax.config.update("jax_enable_compilation_cache", False)
    return jax.jit(embedding_function(read_program(workdir, flip=False)))


def _stablehlo(workdir: Path, files: Path) -> Callable[..., Any]:
    import jax
    from jax import export

    jax.config.update("jax_enable_compilation_cache", False)
    return jax.jit(export.deserialize(bytearray((files / _FILES["StableHLO"]).read_bytes())).call)


def _onnx(workdir: Path, files: Path) -> Callable[..., Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(files / _FILES["ONNX"]), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda *arguments: session.run(None, dict(zip(names, arguments, strict=True)))[0]


_BEGIN = {"XLA": _flax, "StableHLO": _stablehlo, "ONNX": _onnx}


def _arguments(files: Path, batch: int) -> list[np.ndarray]:
    """Returns a batch of what the exported files take."""
    about = require_json(files / f"{_FILES['StableHLO']}.json")
    rng = np.random.default_rng(0)
    shapes = [(entry["dtype"], (batch, *entry["shape"][1:])) for entry in about["inputs"]]
    return [
        np.ones(shape, bool) if dtype == "bool" else rng.integers(0, 256, shape, np.uint8) for dtype, shape in shapes
    ]


def races(settings: Settings) -> list[Race]:
    """Returns a race of the three ways for each batch size; the files are written before."""
    scratch = str(settings.scratch)
    backbone = "x0_25" if settings.quick else "x1_0"
    writer = Entrant("files", "benchmarks.serving:write_files", {"scratch": scratch, "backbone": backbone})
    found = [Race("files", (writer,), 0, setup=True)]
    for batch in (1,) if settings.quick else (1, 8):
        arguments = {"scratch": scratch, "batch": batch, "seconds": settings.seconds}
        entrants = [Entrant(way, "benchmarks.serving:serve", {"way": way, **arguments}) for way in WAYS]
        found.append(Race(f"batch {batch}", tuple(entrants), settings.rounds(7)))
    return found


def write_files(scratch: str, backbone: str) -> Iterator[dict[str, float]]:
    """Writes a workdir and its exported files; an entrant of no rounds."""
    make_workdir(Path(scratch) / "run", backbone)
    _export(Path(scratch) / "run", Path(scratch))
    yield {}


def serve(way: str, scratch: str, batch: int, seconds: float) -> Iterator[dict[str, float]]:
    """Embeds batches one of the three ways; an entrant."""
    embed, given = _BEGIN[way](Path(scratch) / "run", Path(scratch)), _arguments(Path(scratch), batch)
    np.asarray(embed(*given))
    yield {"start": time.time() - float(os.environ[BEGAN])}
    while True:
        yield rate_and_latency(lambda: np.asarray(embed(*given)), batch, seconds)


def _export(workdir: Path, files: Path) -> None:
    for file in filter(None, _FILES.values()):
        command = [sys.executable, "-m", "deskpro_jax.convert", str(workdir), "--to", str(files / file), "--no-flip"]
        subprocess.run(command, check=True)


def measure(way: str, workdir: Path, files: Path, batches: Sequence[int], repeats: int, began: float) -> dict[str, Any]:
    """Times one way; to be called in a fresh process.

    Args:
        way: one of `WAYS`.
        workdir: where the network is.
        files: folder with the exported files.
        batches: sizes to time.
        repeats: calls of each size.
        began: `time.time()` when the process was started.

    Returns:
        `cold` in seconds, and images a second by batch.
    """
    embed = _BEGIN[way](workdir, files)
    np.asarray(embed(*_arguments(files, 1)))
    found: dict[str, Any] = {"cold": time.time() - began}
    for batch in batches:
        given = _arguments(files, batch)
        seconds = []
        for _ in range(repeats + 2):
            start = time.perf_counter()
            np.asarray(embed(*given))
            seconds.append(time.perf_counter() - start)
        found[str(batch)] = batch / min(seconds[2:])
    return found


def _in_process(arguments: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.serving", *arguments, "--began", repr(time.time())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Exports, measures each way and prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=main.__doc__)
    parser.add_argument("--workdir", type=Path, help="a workdir (default: a body stream of random weights)")
    parser.add_argument("--backbone", default="x1_0", help="of the default's network")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="images a call")
    parser.add_argument("--repeats", type=int, default=10, help="calls of each size that are timed")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        found = measure(options.way, options.workdir, options.files, options.batches, options.repeats, options.began)
        print(json.dumps(found))
        return 0
    with tempfile.TemporaryDirectory() as name:
        files = Path(name)
        workdir = options.workdir or files / "run"
        if options.workdir is None:
            make_workdir(workdir, options.backbone)
        _export(workdir, files)
        common = ["--workdir", str(workdir), "--files", str(files), "--repeats", str(options.repeats), "--batches"]
        common += [str(batch) for batch in options.batches]
        rows = {way: _in_process(["--way", way, *common]) for way in WAYS}
        sizes = {way: (files / file).stat().st_size for way, file in _FILES.items() if file}
    heads = ["", "cold, s", *(f"images/s, batch {batch}" for batch in options.batches), "file, MB"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for way, row in rows.items():
        rates = [f"{row[str(batch)]:.1f}" for batch in options.batches]
        size = f"{sizes[way] / 1e6:.0f}" if way in sizes else "-"
        print(f"| {way} | {row['cold']:.1f} | {' | '.join(rates)} | {size} |")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "onnxruntime"))
    print(
        f"\n{machine.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}, load {load}"
    )
    print(datetime.datetime.now(datetime.UTC).date().isoformat())
    return 0


if __name__ == "__main__":
    sys.exit(main())
