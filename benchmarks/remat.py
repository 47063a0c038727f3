"""What each choice of `train.remat` needs: temporary memory and operations of the student step, by the compiler.

    python -m benchmarks.remat                  # the paper's networks and images, 8 images: compiles, runs nothing

The step has both streams and the frozen teacher. "temporary" is what the compiled program needs beside its arguments
(parameters, moments, batch) and results; "GFLOP" counts convolutions and matrix products, those computed again too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_collections
import rich.console
import rich.table

from benchmarks.abstract_step import student_step, tree_bytes
from deskpro_jax.configs import base, variants
from deskpro_jax.errors import InputError
from deskpro_jax.models.remat import REMATS, check_remat
from deskpro_jax.runtime import sharding
from deskpro_jax.runtime.flops import count_flops
from deskpro_jax.storage.files import write_json

IDENTITIES = 490  # of Celeb-reID-light's training split


@dataclass(frozen=True)
class Result:
    """What was found out about one choice; bytes are of one device."""

    remat: str
    batch: int
    parameters: int
    argument_bytes: int
    temporary_bytes: int
    bytes_accessed: float | None  # by the compiler's analysis, read and written
    gflops: float
    compile_seconds: float


def measure(config: ml_collections.ConfigDict, remat: str, classes: int = IDENTITIES) -> Result:
    """Compiles the student step on the first device and asks the compiler.

    Args:
        config: the whole configuration; `train.remat` is replaced.
        remat: one of `deskpro_jax.models.remat.REMATS`.
        classes: identities.
    """
    config = config.copy_and_resolve_references()
    config.mesh.data, config.train.remat = 1, remat
    made = student_step(config, classes, sharding.make_mesh(config))
    traced = made.step.trace(*made.arguments)
    flops = count_flops(traced.jaxpr.jaxpr)
    start = time.perf_counter()
    program = traced.lower().compile()
    seconds = time.perf_counter() - start
    memory, costs = program.memory_analysis(), program.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    state = made.arguments[0]
    return Result(
        remat,
        made.arguments[2]["valid"].shape[0],
        tree_bytes(state.params) // 4,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        (costs or {}).get("bytes accessed"),
        flops / 1e9,
        seconds,
    )


def record(results: Sequence[Any]) -> dict[str, Any]:
    """Returns results and the machine they come from, as JSON values."""
    return {
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "results": [dataclasses.asdict(result) for result in results],
    }


def _table(results: Sequence[Result]) -> rich.table.Table:
    table = rich.table.Table()
    for column in ("train.remat", "batch", "temporary, MB", "arguments, MB", "GFLOP", "compile s"):
        table.add_column(column, justify="left" if column == "train.remat" else "right", no_wrap=True)
    for r in results:
        sizes = (f"{size / 1e6:.0f}" for size in (r.temporary_bytes, r.argument_bytes))
        table.add_row(r.remat, str(r.batch), *sizes, f"{r.gflops:.0f}", f"{r.compile_seconds:.0f}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles the student step with each choice of train.remat; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remat", description=main.__doc__)
    parser.add_argument("--remat", default=",".join(REMATS), help="choices, with commas (default: %(default)s)")
    parser.add_argument("--variant", default="", help="of the configuration, as debug or csa_att")
    parser.add_argument("--identities", type=int, default=4, help="P of a batch (default: %(default)s)")
    parser.add_argument("--images", type=int, default=2, help="K of a batch (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where to write everything that was found")
    options = parser.parse_args(arguments)
    config = base.get_config()
    try:
        variants.apply(config, options.variant)
        for name in options.remat.split(","):
            check_remat(name)
        if min(options.identities, options.images) < 1:
            raise InputError(f"--identities is {options.identities}, --images {options.images}; expected 1 or more.")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    config.data.identities, config.data.images_per_identity = options.identities, options.images
    jax.config.update("jax_enable_compilation_cache", False)
    results = []
    for name in options.remat.split(","):
        results.append(measure(config, name))
        last = results[-1]
        print(f"{name}: {last.temporary_bytes / 1e6:.0f} MB, compiled in {last.compile_seconds:.0f} s", file=sys.stderr)
    rich.console.Console().print(_table(results))
    if options.out:
        write_json(options.out, json.loads(json.dumps(record(results))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
