"""Bytes of a training step on each device by number of identities and by `mesh.model`.

    python -m benchmarks.identities --identities 100000 --model 1,8             # compiles for eight devices
    python -m benchmarks.identities --identities 100000 --model 8 --feature-dim 64 --steps 2      # and runs two steps

The step trains a narrow face student beside a frozen teacher (`--variant` changes that) on small images, so that the
classifiers [7, features, identities], their gradients, moments and logits are what counts. Without accelerators,
`--devices` CPU devices are simulated; they share this machine's memory, so that `--steps` wants few features there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import rich.console
import rich.table

from benchmarks.abstract_step import AbstractStep, device_bytes, student_step
from benchmarks.remat import record
from deskpro_jax.configs import synthetic
from deskpro_jax.errors import InputError
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.models.streams import Streams
from deskpro_jax.runtime import sharding
from deskpro_jax.storage.files import write_json
from deskpro_jax.train import step


@dataclass(frozen=True)
class Result:
    """What one device holds, in bytes, by the compiler; and of real steps, where some were run, what was seen."""

    identities: int
    model: int
    data: int
    feature_dim: int
    parameters: int
    moments: int
    teacher: int
    temporaries: int
    largest: int  # array of the compiled program
    largest_shape: tuple[int, ...]
    losses: list[float]  # the total loss of each step that was run
    step_seconds: list[float]
    live: int | None  # bytes of all arrays on the first device after the last step
    process_peak: int | None  # resident memory of this process, all simulated devices together

    @property
    def total(self) -> int:
        """Parameters, moments, teacher and temporaries."""
        return self.parameters + self.moments + self.teacher + self.temporaries


def largest_array(program: str) -> tuple[int, tuple[int, ...]]:
    """Returns bytes and shape of the largest floating-point array in the text of a compiled program."""
    arrays = re.findall(r"\b(?:f|bf)(16|32|64)\[([\d,]+)\]", program)
    sizes = ((int(bits) // 8, tuple(map(int, shape.split(",")))) for bits, shape in set(arrays))
    return max(((width * int(np.prod(shape, dtype=np.int64)), shape) for width, shape in sizes), default=(0, ()))


def measure(config: ml_collections.ConfigDict, identities: int, model: int, steps: int = 0) -> Result:
    """Compiles the student step for `model` devices that share the classifiers, and runs it if asked to.

    Args:
        config: the whole configuration.
        identities: of the training split.
        model: `mesh.model`; all devices are used.
        steps: to run, with drawn values and a batch of noise.
    """
    config = config.copy_and_resolve_references()
    config.mesh.data, config.mesh.model = -1, model
    mesh = sharding.make_mesh(config)
    made = student_step(config, identities, mesh)
    program = made.step.lower(*made.arguments).compile()
    state, fixed, _, _ = made.arguments
    size, shape = largest_array(program.as_text())
    losses, seconds, live = _run(program, made, steps) if steps else ([], [], None)
    return Result(
        identities,
        model,
        mesh.shape[sharding.DATA_AXIS],
        config.model.feature_dim,
        device_bytes(mesh, state.params),
        device_bytes(mesh, state.opt_state),
        device_bytes(mesh, fixed),
        program.memory_analysis().temp_size_in_bytes,
        size,
        shape,
        losses,
        seconds,
        live,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if steps else None,
    )


def _run(program: Any, made: AbstractStep, steps: int) -> tuple[list[float], list[float], int]:
    def put(module: Streams, seed: int) -> Any:
        return sharding.put_variables(made.mesh, init_variables(module, seed))

    places = sharding.placement(made.mesh, made.arguments[0])
    create = jax.jit(lambda v: step.create_state(v, made.optimizer), out_shardings=places, donate_argnums=0)
    state = create(put(made.module, 0))
    fixed = put(made.teacher, 1) if made.teacher else None
    batch = sharding.put_batch(made.mesh, _noise(made))
    key = jax.device_put(jax.random.key(0), sharding.replicated(made.mesh))
    losses, seconds = [], []
    for _ in range(steps):
        start = time.perf_counter()
        state, terms = program(state, fixed, batch, key)
        losses.append(float(terms["total"]))
        seconds.append(time.perf_counter() - start)
    first = made.mesh.devices.flat[0]
    trees = jax.tree.leaves((state, fixed, batch))
    live = sum(shard.data.nbytes for leaf in trees for shard in leaf.addressable_shards if shard.device == first)
    return losses, seconds, live


def _classes(module: Streams) -> int:
    network: Any = module.body_stream or module.face_stream
    return int(network.num_classes)


def _noise(made: AbstractStep) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    batch = {}
    for name, leaf in made.arguments[2].items():
        if leaf.dtype == np.bool_:
            batch[name] = np.ones(leaf.shape, np.bool_)
        elif name == "identity":
            batch[name] = np.repeat(rng.integers(0, _classes(made.module), leaf.shape[0] // 2), 2).astype(np.int32)
        else:
            batch[name] = rng.integers(0, 2 if name == "cloth_mask" else 256, leaf.shape, np.uint8)
    return batch


def _table(results: Sequence[Result]) -> rich.table.Table:
    names = ("identities", "mesh", "parameters", "moments", "teacher", "temporaries", "total", "largest array")
    table = rich.table.Table(title="MB on each device")
    for column in names:
        table.add_column(column, justify="right", no_wrap=True)
    for r in results:
        sizes = [r.parameters, r.moments, r.teacher, r.temporaries, r.total]
        table.add_row(
            f"{r.identities:,}",
            f"{r.data} x {r.model}",
            *(f"{size / 1e6:,.0f}" for size in sizes),
            f"{r.largest / 1e6:,.0f} {list(r.largest_shape)}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Says what a training step needs on each device by number of identities; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identities", description=main.__doc__)
    parser.add_argument("--identities", default="1000,100000", help="with commas (default: %(default)s)")
    parser.add_argument("--model", default="1,8", help="values of mesh.model, with commas (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=8, help="to simulate where there is only a CPU (default: 8)")
    parser.add_argument("--variant", default="face_fkp", help="of the configuration (default: %(default)s)")
    parser.add_argument("--feature-dim", type=int, default=512, help="model.feature_dim (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=0, help="to run of each (default: 0, compile only)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where to write everything that was found")
    options = parser.parse_args(arguments)
    results = []
    try:
        counts, models = ([int(n) for n in text.split(",")] for text in (options.identities, options.model))
        if min(*counts, *models, options.feature_dim, options.devices) < 1:
            raise InputError("--identities, --model, --devices and --feature-dim have to be 1 or more.")
        if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
            jax.config.update("jax_num_cpu_devices", options.devices)
        config = synthetic.get_config(f"{options.variant},debug")
        config.model.feature_dim = options.feature_dim
        config.data.identities, config.data.images_per_identity = options.devices, 2
        for identities in counts:
            for model in models:
                results.append(measure(config, identities, model, options.steps))
                _tell(results[-1])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = rich.console.Console()
    console.width = max(console.width, 120)
    console.print(_table(results))
    if options.out:
        write_json(options.out, json.loads(json.dumps(record(results))))
    return 0


def _tell(result: Result) -> None:
    text = (
        f"{result.identities:,} identities, mesh {result.data} x {result.model}: {result.total / 1e6:,.0f} MB a device"
    )
    if result.live is not None and result.process_peak is not None:
        times = ", ".join(f"{seconds:.1f}" for seconds in result.step_seconds)
        losses = ", ".join(f"{loss:.3f}" for loss in result.losses)
        text += (
            f"; ran {len(result.losses)} steps ({times} s, total loss {losses}), {result.live / 1e6:,.0f} MB of arrays "
            f"on the first device, at most {result.process_peak / 1e6:,.0f} MB in the process"
        )
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
