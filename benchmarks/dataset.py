"""Building a dataset: images a second from files, in one process and in several, and of the synthetic one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import drawn_photos
from benchmarks.races import OURS, Entrant, Race, Settings

IMAGES = 2000


def races(settings: Settings) -> list[Race]:
    """Returns the cases of the module's first line."""
    images = max(20, settings.count(IMAGES, 20))
    scratch = str(settings.scratch)
    found = []
    for workers in dict.fromkeys((0, settings.threads)):
        if workers == 0 or not settings.quick:
            how = f"in {workers} processes" if workers else "in one process"
            arguments = {"scratch": scratch, "images": images, "workers": workers}
            entrant = Entrant(OURS, "benchmarks.dataset:from_files", arguments)
            found.append(Race(f"{images:,} photos with masks and faces, {how}", (entrant,), settings.rounds(3)))
    entrant = Entrant(OURS, "benchmarks.dataset:synthetic", {"scratch": scratch})
    found.append(Race("synthetic_tiny, drawn", (entrant,), settings.rounds(3)))
    return found


def from_files(scratch: str, images: int, workers: int) -> Iterator[dict[str, float]]:
    """Builds the dataset `folder` from photo files, masks and faces; an entrant."""
    from deskpro_jax.data.build import builder

    raw = Path(scratch) / f"raw-{workers}"
    raw.mkdir()
    drawn_photos.write(raw, images)
    yield {}
    while True:
        target = Path(scratch) / f"built-{workers}"
        start = time.perf_counter()
        builder.build("folder", target, raw, progress=False, workers=workers)
        seconds = time.perf_counter() - start
        shutil.rmtree(target)
        yield {"rate": images / seconds, "time": seconds}


def synthetic(scratch: str) -> Iterator[dict[str, float]]:
    """Draws and builds the smallest synthetic dataset; an entrant."""
    from deskpro_jax.data.build import builder
    from deskpro_jax.data.synthetic.generate import SIZES

    size = SIZES["tiny"]
    images = size.train_images + size.query_images + size.gallery_images
    yield {}
    while True:
        target = Path(scratch) / "drawn"
        start = time.perf_counter()
        builder.build("synthetic_tiny", target, progress=False)
        seconds = time.perf_counter() - start
        shutil.rmtree(target)
        yield {"rate": images / seconds, "time": seconds}
