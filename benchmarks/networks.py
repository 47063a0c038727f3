"""Measures the three frozen networks: images/s by batch size beside their operations, with random weights.

python -m benchmarks.networks --batch 1,4,8 --out networks.json
python -m benchmarks.run networks                                # each in a process of its own, in one report
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.console
import rich.table

from benchmarks.races import Entrant, Race, Settings
from benchmarks.timing import call_seconds, rate_and_latency
from data_prep.detection.detect import detect_raw
from data_prep.detection.load import Detector
from data_prep.detection.model import VARIANTS, RetinaFace
from data_prep.devices import all_devices, batch_rows
from data_prep.parsing.load import Parser
from data_prep.parsing.model import SCHP
from data_prep.parsing.parse import parse_logits
from data_prep.restoration.load import Restorer
from data_prep.restoration.model import BFR_256, BFR_512, GPEN
from data_prep.restoration.restore import restore
from deskpro_jax.data.schema import ATR, LIP, PASCAL
from deskpro_jax.errors import InputError, exit_code
from deskpro_jax.runtime import sharding
from deskpro_jax.runtime.flops import count_flops
from deskpro_jax.storage.files import write_json

CANVAS = (512, 256)  # height and width that a 256 x 128 photo is enlarged to before detection
_PARSER_SIZES = ((LIP, 473), (ATR, 512), (PASCAL, 512))


@dataclass(frozen=True)
class Case:
    """A network to measure.

    Attributes:
        name: what it is called in the results.
        run: `(variables, images) -> outputs`, pure.
        module: the flax module, for the shapes of its variables.
        shape: height, width and channels of an image.
    """

    name: str
    run: Callable[[Any, Any], Any]
    module: Any
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Result:
    """What was measured of a network at one batch size, over all devices; times in seconds."""

    network: str
    batch: int
    height: int
    width: int
    parameters: int
    gflops: float  # an image, of convolutions and products
    compiler_gflops: float | None  # an image, by the compiler's analysis, which takes the body of a loop once
    images_per_second: float
    batch_seconds: list[float]
    compile_seconds: float
    temporary_bytes: int | None  # that the program needs on a device beside weights, input and output


def cases() -> list[Case]:
    """Returns all networks that `data_prep.prepare` can run."""
    found = []
    for scheme, size in _PARSER_SIZES:
        parser = Parser(scheme, size, {}, "")
        found.append(
            Case(
                f"SCHP {scheme.name}",
                lambda v, x, parser=parser: parse_logits(parser, v, x),  # type: ignore[misc]
                SCHP(len(scheme.labels)),
                (size, size, 3),
            )
        )
    for variant in VARIANTS:
        detector = Detector(variant, {}, "")
        found.append(
            Case(
                f"RetinaFace {variant}",
                lambda v, x, detector=detector: detect_raw(detector, v, x),  # type: ignore[misc]
                RetinaFace(variant),
                (*CANVAS, 3),
            )
        )
    for architecture in (BFR_256, BFR_512):
        restorer = Restorer(architecture.size, architecture, {}, "")
        found.append(
            Case(
                restorer.name,
                lambda v, x, restorer=restorer: restore(restorer, v, x),  # type: ignore[misc]
                GPEN(architecture),
                (architecture.size, architecture.size, 3),
            )
        )
    return found


def random_variables(module: Any, shape: tuple[int, int, int], seed: int = 0) -> Any:
    """Returns variables that keep values in a normal range: kernels of unit gain, ones for all vectors."""
    rng = np.random.default_rng(seed)
    template = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), np.float32))

    def fill(leaf: Any) -> np.ndarray:
        if leaf.ndim < 2:
            return np.ones(leaf.shape, np.float32)
        values = rng.standard_normal(leaf.shape, np.float32)
        return values / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))

    return jax.tree.map(fill, template)


def measure(case: Case, batch: int, seconds: float) -> Result:
    """Measures a network at one batch size.

    Args:
        case: the network.
        batch: images at a time, rounded up to a multiple of the devices.
        seconds: how long to repeat, three times at least.
    """
    program, result = _prepare(case, batch)
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        times += call_seconds(program, 0.0)
    rate = result.batch / statistics.median(times)
    return dataclasses.replace(result, images_per_second=rate, batch_seconds=times)


def races(settings: Settings) -> list[Race]:
    """Returns a race for each network and batch size, of that network alone."""
    found = []
    for case in cases():
        for batch in (1, 8) if not settings.quick else (1,):
            arguments = {"name": case.name, "batch": batch, "seconds": settings.seconds}
            entrant = Entrant(case.name, "benchmarks.networks:embed", arguments)
            found.append(Race(f"batch {batch}", (entrant,), settings.rounds(3)))
    return found


def embed(name: str, batch: int, seconds: float) -> Iterator[dict[str, float]]:
    """Runs one network; an entrant."""
    program, result = _prepare(next(case for case in cases() if case.name == name), batch)
    operations = result.gflops * 1e9 * result.batch
    yield {"compile": result.compile_seconds, "operations": operations}
    while True:
        found = rate_and_latency(program, result.batch, seconds)
        yield {**found, "speed": operations * found["rate"] / result.batch}


def _prepare(case: Case, batch: int) -> tuple[Callable[[], Any], Result]:
    """Compiles a network and runs it once; returns a call that does it again, and what is known of it."""
    mesh = all_devices()
    rows = batch_rows(mesh, batch)
    variables = random_variables(case.module, case.shape)
    images = np.random.default_rng(1).integers(0, 256, (rows, *case.shape), np.uint8)
    flops = count_flops(jax.make_jaxpr(case.run)(variables, images).jaxpr)
    whole, split = sharding.replicated(mesh), sharding.split_batch(mesh)
    placed = sharding.put_replicated(mesh, variables)
    batched = sharding.put_batch(mesh, {"images": images})["images"]
    start = time.perf_counter()
    program = jax.jit(case.run, in_shardings=(whole, split), out_shardings=split).lower(placed, batched).compile()
    compiled = time.perf_counter() - start
    jax.block_until_ready(program(placed, batched))
    return lambda: jax.block_until_ready(program(placed, batched)), Result(
        case.name,
        rows,
        *case.shape[:2],
        sum(leaf.size for leaf in jax.tree.leaves(variables)),
        flops / rows / 1e9,
        _compiler_flops(program.cost_analysis(), rows // mesh.size),
        0.0,
        [],
        compiled,
        getattr(program.memory_analysis(), "temp_size_in_bytes", None),
    )


def _compiler_flops(analysis: Any, rows: int) -> float | None:
    whole = analysis[0] if isinstance(analysis, list) and analysis else analysis
    return whole["flops"] / rows / 1e9 if isinstance(whole, Mapping) and "flops" in whole else None


def _table(results: Sequence[Result]) -> rich.table.Table:
    table = rich.table.Table()
    for column in ("network", "batch", "input", "parameters", "GFLOP", "images/s", "GFLOP/s", "compile s"):
        table.add_column(column, justify="left" if column == "network" else "right", no_wrap=True)
    for r in results:
        table.add_row(
            r.network,
            str(r.batch),
            f"{r.height}x{r.width}",
            f"{r.parameters / 1e6:.1f} M",
            f"{r.gflops:.1f}",
            f"{r.images_per_second:.2f}",
            f"{r.gflops * r.images_per_second:.0f}",
            f"{r.compile_seconds:.0f}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures images/s of each frozen network by batch size; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=main.__doc__)
    parser.add_argument("--batch", default="1,4,8", help="batch sizes with commas (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="WORD", help="networks whose name has this word, as GPEN")
    parser.add_argument("--seconds", type=float, default=5.0, help="to repeat each for (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where to write everything that was measured")
    options = parser.parse_args(arguments)
    try:
        sizes = [int(size) for size in options.batch.split(",")]
        if min(sizes) < 1:
            raise ValueError
    except ValueError:
        print(f"error: --batch is {options.batch!r}; expected numbers with commas, as 1,4,8.", file=sys.stderr)
        return 2
    chosen = [case for case in cases() if options.only.lower() in case.name.lower()]
    if not chosen:
        error = InputError(f"--only is {options.only!r}; expected a part of {', '.join(c.name for c in cases())}.")
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    results = []
    for case in chosen:
        for size in sizes:
            results.append(measure(case, size, options.seconds))
            last = results[-1]
            print(f"{last.network}, batch {last.batch}: {last.images_per_second:.2f} images/s", file=sys.stderr)
    console = rich.console.Console()
    console.width = max(console.width, 100)
    console.print(_table(results))
    if options.out:
        devices = jax.devices()
        record = {
            "devices": [f"{device.platform}: {device.device_kind}" for device in devices],
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "jax": jax.__version__,
            "results": [dataclasses.asdict(result) for result in results],
        }
        write_json(options.out, json.loads(json.dumps(record)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
