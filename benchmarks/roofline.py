"""What larger machines should do with a training step, computed from measured figures and their makers' peak figures.

    python -m benchmarks.remat --remat none --out step.json      # measures the step: operations, bytes, memory
    python -m benchmarks.roofline --step step.json               # measures the input pipeline, and computes

Nothing here ran on these machines: every number in the table is a bound, computed. A step takes at least as long as
its matrix products at the peak of a chip, its memory traffic at the peak of the chip's memory, whichever is longer, and
then the all-reduce of the gradients; the input pipeline bounds the whole machine. What is kept of a peak (`--share`) is
an assumption and stands in the title.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.console
import rich.table

from deskpro_jax.configs import base
from deskpro_jax.errors import InputError
from deskpro_jax.storage.files import require_json, write_json

MOMENTS = 2  # of Adam, of a parameter
ACCUMULATED = 4  # bytes of a parameter, a gradient or a moment


@dataclass(frozen=True)
class Machine:
    """Peak figures as the maker states them; a second is the unit of time."""

    name: str
    chips: int
    flops: float  # of a chip, bfloat16, dense
    memory_bandwidth: float  # bytes of a chip
    memory: float  # bytes of a chip
    link: float  # bytes that a chip sends to its neighbours, one direction
    cores: int  # of all hosts; a hyperthread counts as half of one
    source: str


_V5E = "Google Cloud, 'TPU v5e' (197 TFLOP/s, 16 GB, 819 GB/s, 400 GB/s both ways; 28 vCPU a chip)"
_H100 = (
    "NVIDIA, data sheets 'H100 Tensor Core GPU' (989 TFLOP/s dense, 80 GB, 3.35 TB/s, 900 GB/s both ways), 'DGX H100'"
)
MACHINES = (
    Machine("v5e-8", 8, 197e12, 819e9, 16e9, 200e9, 8 * 14, _V5E),
    Machine("8 x H100 SXM", 8, 989e12, 3.35e12, 80e9, 450e9, 112, _H100),
    Machine("v5e-32", 32, 197e12, 819e9, 16e9, 200e9, 32 * 14, _V5E),
)


@dataclass(frozen=True)
class Measured:
    """What was measured here.

    Attributes:
        flops: operations of a step, of an image.
        traffic: bytes that a step reads and writes, of an image.
        temporary: bytes that a step needs beside its arguments, of an image.
        parameters: that are trained.
        image: bytes that the host sends, of an image with its mask and faces.
        loader: images a second that one core of the host makes ready.
    """

    flops: float
    traffic: float
    temporary: float
    parameters: int
    image: int
    loader: float


@dataclass(frozen=True)
class Bound:
    """What a machine should do with a batch; seconds of a step, then images a second."""

    machine: str
    chips: int
    images: int  # of a chip
    products: float
    traffic: float
    reduce: float
    step: float
    images_per_second: float  # that the devices could take
    input: float  # images a second that the host could give
    limit: str
    largest: int  # images of a chip that its memory holds


def bound(machine: Machine, measured: Measured, images: int, share: float, width: int = 2) -> Bound:
    """Computes what bounds a step.

    Args:
        machine: the machine.
        measured: the step and the pipeline.
        images: of the batch, on each chip.
        share: of every peak that is reached, between 0 and 1.
        width: bytes of an activation, 2 for bfloat16; what was measured is float32, 4.

    Returns:
        The bound. Gradients stay float32; the all-reduce on a ring moves 2 (n - 1) / n of them over each link and does
        not overlap with the rest, which is pessimistic.
    """
    narrow = width / 4
    products = images * measured.flops / (machine.flops * share)
    traffic = images * measured.traffic * narrow / (machine.memory_bandwidth * share)
    ring = 2 * (machine.chips - 1) / machine.chips
    reduce = ring * measured.parameters * ACCUMULATED / (machine.link * share)
    step = max(products, traffic) + reduce
    devices, host = machine.chips * images / step, machine.cores * measured.loader
    limit = "all-reduce" if reduce > max(products, traffic) else "products" if products > traffic else "memory traffic"
    state = (2 + MOMENTS) * ACCUMULATED * measured.parameters
    largest = int((machine.memory - state) / (measured.temporary * narrow))
    return Bound(
        machine.name,
        machine.chips,
        images,
        products,
        traffic,
        reduce,
        step,
        devices,
        host,
        "input" if host < devices else limit,
        largest,
    )


def image_bytes() -> int:
    """Returns the bytes of an image with its mask and both faces, as the host sends them: uint8, the paper's sizes."""
    data = base.get_config().data
    return 4 * data.body_size[0] * data.body_size[1] + 2 * 3 * data.face_size[0] * data.face_size[1]


def loader_speed(seconds: float, folder: Path) -> float:
    """Measures how many images of a training batch, at the paper's sizes, one thread decodes in a second.

    Args:
        seconds: of processor time to measure for; others on the machine do not count.
        folder: where the smallest synthetic dataset is, or is built.
    """
    from deskpro_jax.data.build import builder
    from deskpro_jax.data.load import dataset, decoding

    config = base.get_config().data
    if not builder.is_built("synthetic_tiny", folder):
        builder.build("synthetic_tiny", folder)
    split = dataset.load("synthetic_tiny", folder, "train")
    sizes = tuple(config.body_size), tuple(config.face_size)
    decoder = decoding.Decoder(decoding.FIELDS, *sizes, split.clothing, len(split.scheme.labels))
    decoder = dataclasses.replace(decoder, enlarge=decoder.small(split))  # as in training
    batch, done = decoder.empty(1), 0
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        decoder.fill(batch, 0, split, done % len(split), (0.0, 0.0, 0.95, 0.95))
        done += 1
    return done / (time.thread_time() - start)


def read_step(path: Path) -> dict[str, float]:
    """Reads the first result of `benchmarks.remat`.

    Raises:
        InputError: the file holds none.
    """
    try:
        result = require_json(path)["results"][0]
        return {name: float(result[name]) for name in _FIELDS}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"--step is {path}; expected what benchmarks.remat --out writes ({error!r}).") from error


_FIELDS = ("batch", "gflops", "bytes_accessed", "temporary_bytes", "parameters")


def _table(bounds: Sequence[Bound], share: float) -> rich.table.Table:
    table = rich.table.Table(title=f"computed, not measured: bounds at {share:.0%} of every peak, bfloat16")
    columns = (
        "machine",
        "images a chip",
        "products, ms",
        "traffic, ms",
        "all-reduce, ms",
        "images/s",
        "input, images/s",
    )
    for column in (*columns, "limit", "most images a chip"):
        table.add_column(column, justify="left" if column in ("machine", "limit") else "right")
    for b in bounds:
        milliseconds = (f"{1e3 * seconds:.2f}" for seconds in (b.products, b.traffic, b.reduce))
        rates = (f"{rate:,.0f}" for rate in (b.images_per_second, b.input))
        table.add_row(b.machine, str(b.images), *milliseconds, *rates, b.limit, f"{b.largest:,}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Computes what larger machines should do with a training step; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=main.__doc__)
    parser.add_argument("--step", type=Path, required=True, metavar="FILE.json", help="from benchmarks.remat --out")
    parser.add_argument("--loader", type=float, help="images a second of one core (default: measured now)")
    parser.add_argument("--images", default="4,32,128", help="of the batch on a chip (default: %(default)s)")
    parser.add_argument("--share", type=float, default=0.3, help="of every peak that is reached (default: 0.3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="to measure the loader for (default: 5)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where to write inputs and bounds")
    options = parser.parse_args(arguments)
    try:
        sizes = [int(size) for size in options.images.split(",")]
        if min(sizes) < 1 or not 0 < options.share <= 1 or (options.loader is not None and options.loader <= 0):
            raise InputError("--images and --loader have to be positive, --share above 0 and at most 1.")
        step = read_step(options.step)
        loader = options.loader
        if loader is None:
            with tempfile.TemporaryDirectory() as folder:
                loader = loader_speed(options.seconds, Path(folder))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    measured = Measured(
        1e9 * step["gflops"] / step["batch"],
        step["bytes_accessed"] / step["batch"],
        step["temporary_bytes"] / step["batch"],
        int(step["parameters"]),
        image_bytes(),
        loader,
    )
    bounds = [bound(machine, measured, size, options.share) for machine in MACHINES for size in sizes]
    console = rich.console.Console()
    console.width = max(console.width, 130)
    console.print(_table(bounds, options.share))
    print(
        f"measured: {measured.flops / 1e9:.1f} GFLOP, {measured.traffic / 1e6:.0f} MB of traffic and "
        f"{measured.temporary / 1e6:.0f} MB of temporaries an image in float32, {measured.parameters / 1e6:.1f} M "
        f"parameters, {measured.image / 1e3:.0f} kB an image from the host, {measured.loader:.0f} images/s a core"
    )
    for source in dict.fromkeys(machine.source for machine in MACHINES):
        print(f"peaks: {source}")
    if options.out:
        record = {"measured": dataclasses.asdict(measured), "share": options.share}
        write_json(options.out, record | {"bounds": [dataclasses.asdict(b) for b in bounds]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
