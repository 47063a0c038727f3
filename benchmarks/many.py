"""Embeds many photos with `deskpro_jax.embed`, killed on the way if wanted, and records its memory all the while.

    python -m benchmarks.many --checkpoint runs/synthetic --out many.json --plot many.png
    python -m benchmarks.many --checkpoint runs/synthetic --images 20000 --kills 2

The photos are synthetic people of 256x128 pixels, every one of them shifted and lit differently. Memory is the resident
size of the command, once every `EVERY` seconds. "growth" is the slope of a line through what it occupied after a tenth
of the photos, times the rest of the photos: what flat memory would have at nothing. Of a command that was killed, only
what the last start embedded counts.
"""

from __future__ import annotations

import argparse
import io
import itertools
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.machine import describe
from benchmarks.memory import resident_bytes
from benchmarks.plot import check
from deskpro_jax.data.synthetic import generate
from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError, MissingInputError, RunError, exit_code
from deskpro_jax.runtime import cores
from deskpro_jax.runtime.progress import Progress
from deskpro_jax.storage.files import write_json

EVERY = 0.5  # seconds between two looks at the memory
_PER_FOLDER = 1000
_MEBIBYTE = 2**20


class Sample(NamedTuple):
    """One look at the command: seconds since it was first started, photos in finished parts, resident bytes."""

    seconds: float
    photos: int
    resident: int


def write_photos(folder: Path, count: int, workers: int) -> None:
    """Writes JPEG photos, a thousand a folder; the same photos whatever the number of workers.

    Args:
        folder: an empty folder.
        count: how many.
        workers: processes that write them.
    """
    drawn = [example.body for _, example in generate.generate("tiny", 0)]
    jobs = [(folder, start, min(start + _PER_FOLDER, count), drawn) for start in range(0, count, _PER_FOLDER)]
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        Progress(count, "writing photos", images_per_step=1, enabled=True) as progress,
    ):
        for written in pool.map(_write_folder, jobs):
            progress.advance(steps=written)


def _write_folder(job: tuple[Path, int, int, list[bytes]]) -> int:
    folder, start, end, drawn = job
    place = folder / f"{start // _PER_FOLDER:04d}"
    place.mkdir()
    images = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float32) for content in drawn]
    for number in range(start, end):
        rng = np.random.default_rng(number)
        image = np.roll(images[number % len(images)], rng.integers(-6, 7, 2), (0, 1)) * rng.uniform(0.7, 1.2)
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(place / f"{number:06d}.jpg", quality=90)
    return end - start


def watch(command: Sequence[str], out: Path, part: int, begun: float, until: int | None = None) -> list[Sample]:
    """Runs `deskpro_jax.embed` and looks at its memory until it ends.

    Args:
        command: what to run; it writes parts of `part` photos into `out`.
        out: the folder of the parts.
        part: photos a part.
        begun: when the first of several such runs was started, by `time.monotonic`.
        until: photos in finished parts upon which it is killed, None to let it end.

    Returns:
        What was seen.

    Raises:
        RunError: it failed.
    """
    child = subprocess.Popen(command)
    seen: list[Sample] = []
    while child.poll() is None:
        photos = part * len(list(out.glob("part-*.parquet")))
        seen.append(Sample(time.monotonic() - begun, photos, resident_bytes(child.pid)))
        if until is not None and photos >= until:
            child.send_signal(signal.SIGKILL)
            child.wait()
            return seen
        time.sleep(EVERY)
    if child.returncode:
        raise RunError(f"{' '.join(command)} ended with exit code {child.returncode}; what it printed is above.")
    return seen


def growth(seen: Sequence[Sample], count: int) -> float:
    """Returns by how many bytes memory grew from a tenth of the photos to the last, by a line through all samples.

    Args:
        seen: of one run that was not killed; it may have begun with photos that were done.
        count: photos.
    """
    done = seen[0].photos if seen else 0
    late = [sample for sample in seen if sample.photos > done + (count - done) / 10]
    if len({sample.photos for sample in late}) < 3:
        return 0.0
    slope = np.polyfit([sample.photos for sample in late], [sample.resident for sample in late], 1)[0]
    return float(slope * 0.9 * (count - done))


def draw(seen: Sequence[Sample], path: Path) -> None:
    """Draws memory, and the photos that are done, over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([sample.seconds / 60 for sample in seen], [sample.resident / _MEBIBYTE for sample in seen], color="C0")
    axes.set(xlabel="minutes", ylabel="resident MiB", title=f"{seen[-1].photos:,} photos embedded")
    axes.set_ylim(bottom=0)
    photos = axes.twinx()
    photos.plot([sample.seconds / 60 for sample in seen], [sample.photos for sample in seen], color="C1", ls="--")
    photos.set_ylabel("photos done (dashed)")
    figure.savefig(path, dpi=150)


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[Sample]]:
    """Embeds the photos as often interrupted as wanted; returns figures and samples."""
    photos, out = folder / "photos", folder / "embeddings"
    photos.mkdir()
    write_photos(photos, options.images, cores.count())
    command = [sys.executable, "-m", "deskpro_jax.embed", "--checkpoint", str(options.checkpoint)]
    command += ["--images", str(photos), "--out", str(out), "--part", str(options.part), "--stored", "float16"]
    begun, seen = time.monotonic(), []
    last: list[Sample] = []
    for kill in range(options.kills + 1):
        until = options.images * (kill + 1) // (options.kills + 1) if kill < options.kills else None
        last = watch(command, out, options.part, begun, until)
        seen += last
    seen = [sample._replace(photos=min(sample.photos, options.images)) for sample in seen]  # the last part is short
    found = EmbeddingSet(out)
    rows = sum(len(block) for block in found.blocks())
    if rows != options.images:
        raise RunError(f"{options.images} photos gave {rows} embeddings; {out} has them.")
    resident = [sample.resident for sample in seen]
    figures = {
        "photos": options.images,
        "rows": rows,
        "kills": options.kills,
        "seconds": round(seen[-1].seconds, 1),
        "images_per_s": round(options.images / seen[-1].seconds, 1),
        "peak_MiB": round(max(resident) / _MEBIBYTE, 1),
        "growth_MiB": round(growth(last, options.images) / _MEBIBYTE, 1),
    }
    return figures, seen


def main(arguments: Sequence[str] | None = None) -> int:
    """Embeds many photos and records the memory it takes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=main.__doc__)
    parser.add_argument("--checkpoint", required=True, type=Path, help="a workdir, or a weights file")
    parser.add_argument("--images", type=int, default=100_000, help="photos (default: %(default)s)")
    parser.add_argument("--part", type=int, default=2048, help="photos a part (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs on the way (default: none)")
    parser.add_argument("--folder", type=Path, help="for 20 kB a photo (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="JSON file to write as well, with all samples")
    parser.add_argument("--plot", type=Path, help="PNG, SVG or PDF of the memory over time")
    options = parser.parse_args(arguments)
    try:
        if min(options.images, options.part) < 1 or options.kills < 0:
            raise InputError("--images and --part have to be 1 or more, --kills 0 or more.")
        if options.plot is not None:
            check(options.plot)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            figures, seen = measure(options, Path(folder))
        if options.out is not None:
            write_json(options.out, {**figures, "machine": describe(), "samples": seen})
        if options.plot is not None:
            draw(seen, options.plot)
    except (InputError, MissingInputError, RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    print(", ".join(itertools.starmap("{} {}".format, figures.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
