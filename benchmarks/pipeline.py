"""The input pipeline alone: images a second beside decoding the same files and nothing else.

"one core" keeps both on one processor: images a second per core. Photos are JPEG of 256 x 128, the size of the
published data sets, and are resized to the network's 384 x 128.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import drawn_photos
from benchmarks.races import OURS, Entrant, Race, Settings

IMAGES = 1000
FIELDS = {"body": ("body",), "body, mask and faces": ("body", "cloth_mask", "face", "restored_face")}
_BUFFERED = 6  # batches that may wait from the time before a round


def races(settings: Settings) -> list[Race]:
    """Returns races for the body alone and for all that the student phase reads, on one core and on all."""
    scratch, images = str(settings.scratch), max(200, settings.count(IMAGES, 200))
    build = Entrant(OURS, "benchmarks.pipeline:build", {"scratch": scratch, "images": images})
    found = [Race("dataset", (build,), 0, setup=True)]
    for what, fields in FIELDS.items():
        for threads in dict.fromkeys((1, settings.threads)):
            arguments = {"scratch": scratch, "fields": list(fields), "seconds": settings.seconds}
            entrants = [Entrant(OURS, "benchmarks.pipeline:batches", arguments, threads)]
            for decoder in ("pillow", "simplejpeg") if what == "body" else ("pillow",):
                entrant_arguments = {**arguments, "decoder": decoder, "threads": threads}
                name = f"raw decode, {decoder}"
                entrants.append(Entrant(name, "benchmarks.pipeline:decode", entrant_arguments, threads))
            cores = "one core" if threads == 1 else f"{threads} cores"
            found.append(Race(f"{what}, {cores}", tuple(entrants), settings.rounds(7)))
    return found


def build(scratch: str, images: int) -> Iterator[dict[str, float]]:
    """Builds the dataset that the others read; an entrant of no rounds."""
    from deskpro_jax.data.build import builder

    raw = Path(scratch) / "raw"
    raw.mkdir()
    drawn_photos.write(raw, images)
    builder.build("folder", Path(scratch) / "data", raw, progress=False)
    yield {}


def batches(scratch: str, fields: Sequence[str], seconds: float) -> Iterator[dict[str, float]]:
    """Takes training batches as fast as they come; an entrant."""
    from deskpro_jax.configs import base
    from deskpro_jax.data.load import dataset, pipeline

    config = base.get_config()
    split = dataset.load("folder", Path(scratch) / "data", "train")
    enlarge = pipeline.device_enlarges(split, config, fields)
    found = pipeline.train_batches(split, config, seed=0, phase="student", fields=tuple(fields), enlarge=enlarge)
    next(found)
    yield {}
    while True:
        for _ in range(_BUFFERED):  # what was decoded while others had their turn
            next(found)
        taken = 0
        start = time.perf_counter()
        while taken == 0 or time.perf_counter() - start < seconds:
            taken += len(next(found)["valid"])
        yield {"rate": taken / (time.perf_counter() - start)}


def decode(
    scratch: str, fields: Sequence[str], seconds: float, decoder: str, threads: int
) -> Iterator[dict[str, float]]:
    """Decodes the files of the same images, which are in memory, to arrays, in as many threads; an entrant."""
    from deskpro_jax.data.load import dataset

    split = dataset.load("folder", Path(scratch) / "data", "train")
    names = ["parts" if field == "cloth_mask" else field for field in fields]
    contents = []
    for index in range(min(len(split), 600)):
        example = split[index]
        contents.append([value for value in (getattr(example, name) for name in names) if value is not None])
    read = _decoder(decoder)

    def one(files: list[bytes]) -> None:
        for content in files:
            read(content)

    chunk = 30  # a batch
    with ThreadPoolExecutor(threads) as pool:
        yield {}
        while True:
            taken = 0
            start = time.perf_counter()
            for first in itertools.cycle(range(0, len(contents), chunk)):
                some = contents[first : first + chunk]
                for _ in pool.map(one, some) if threads > 1 else map(one, some):
                    pass
                taken += len(some)
                if time.perf_counter() - start >= seconds:
                    break
            yield {"rate": taken / (time.perf_counter() - start)}


def _decoder(name: str) -> Callable[[bytes], Any]:
    import numpy as np

    if name == "simplejpeg":
        import simplejpeg

        return lambda content: simplejpeg.decode_jpeg(content)
    from PIL import Image

    def pillow(content: bytes) -> Any:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image)

    return pillow
