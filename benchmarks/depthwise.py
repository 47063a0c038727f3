"""What each choice of `train.depthwise` costs: an OSBlock forward and backward, on this device or compiled for a TPU.

    python -m benchmarks.depthwise                                       # times it on jax's first device
    TPU_SKIP_MDS_QUERY=1 python -m benchmarks.depthwise --tpu v5e:2x4    # only compiles; pip install "jax[tpu]"

The block is the first of the paper's body stream at 384x128: maps of 96x32, 64 channels in and 256 out. "moved" is the
compiler's count of bytes read and written, "temporary" what the program needs beside its arguments and results.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks.timing import call_seconds
from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers
from deskpro_jax.models.layers import DEPTHWISE_FORMS
from deskpro_jax.models.osnet import OSBlock

FEATURES = 256
MAP = (96, 32, 64)  # height, width, channels


@dataclass(frozen=True)
class Result:
    """What was found out about one form."""

    form: str
    bytes_accessed: float
    temporary_bytes: int
    compile_seconds: float
    milliseconds: float | None  # of the median call; None where it was only compiled


def training_step(form: str, batch: int, dtype: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns value, gradients and new statistics of an OSBlock as a function, and its arguments."""
    block = OSBlock(FEATURES, dtype=dtype, depthwise=form)
    x = np.random.default_rng(0).standard_normal((batch, *MAP), np.float32).astype(jnp.dtype(dtype))
    variables = initialisers.draw(lambda key: block.init(key, x[:1], train=False), 0)

    def step(variables: Any, x: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
            y, moved = block.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.square(y.astype(jnp.float32)).mean(), moved

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], x)

    return step, (variables, x)


def measure(form: str, batch: int, dtype: str, tpu: str | None, seconds: float) -> Result:
    """Compiles one form, and times it unless it is compiled for a TPU.

    Args:
        form: one of `DEPTHWISE_FORMS`.
        batch: images.
        dtype: of the computation.
        tpu: topology to compile for, as "v5e:2x4"; None for jax's first device.
        seconds: how long to repeat the step.
    """
    step, arguments = training_step(form, batch, dtype)
    device = topologies.get_topology_desc(platform="tpu", topology_name=tpu).devices[0] if tpu else jax.devices()[0]
    place = SingleDeviceSharding(device)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), arguments)
    start = time.perf_counter()
    program = jax.jit(step).trace(*shapes).lower(lowering_platforms=(device.platform,)).compile()
    compile_seconds = time.perf_counter() - start
    costs: Any = program.cost_analysis()
    milliseconds = None
    if tpu is None:
        on_device = jax.device_put(arguments, place)
        jax.block_until_ready(program(*on_device))  # the first call of a program takes longer
        times = call_seconds(lambda: jax.block_until_ready(program(*on_device)), seconds)
        milliseconds = 1e3 * float(np.median(times))
    temporary = program.memory_analysis().temp_size_in_bytes
    return Result(form, costs["bytes accessed"], temporary, compile_seconds, milliseconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares the forms of the depthwise convolution; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depthwise", description=main.__doc__)
    parser.add_argument("--forms", default=",".join(DEPTHWISE_FORMS), help="with commas (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images (default: %(default)s)")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"), help="default: %(default)s")
    parser.add_argument("--tpu", metavar="TOPOLOGY", help="compile for a TPU that is not here, as v5e:2x4")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each form (default: %(default)s)")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_compilation_cache", False)
    table = rich.table.Table()
    for column in ("train.depthwise", "moved, MB", "temporary, MB", "compiled in, s", "step, ms"):
        table.add_column(column, justify="left" if column == "train.depthwise" else "right", no_wrap=True)
    try:
        for form in options.forms.split(","):
            r = measure(form, options.batch, options.dtype, options.tpu, options.seconds)
            sizes = (f"{size / 1e6:,.0f}" for size in (r.bytes_accessed, r.temporary_bytes))
            timed = "" if r.milliseconds is None else f"{r.milliseconds:.1f}"
            table.add_row(r.form, *sizes, f"{r.compile_seconds:.0f}", timed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rich.console.Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
