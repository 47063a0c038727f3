"""Tiny networks in place of the three that prepare runs, and the command with them, which can kill itself.

As a script: WRITES ARGUMENTS..., where the process gets SIGKILL in the middle of its WRITES-th file (0: never), or
SIGTERM where WRITES starts with "term:".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
from PIL import Image

from data_prep import prepare
from data_prep.detection.detect import Raw
from data_prep.detection.load import Detector
from data_prep.parsing.load import Parser
from data_prep.stages import detect, parse, restore
from deskpro_jax.data.schema import LIP

PARSER_SIZE, FACE_SIZE = 33, 64


def draw_photo(index: int, size: tuple[int, int] | None = None) -> Image.Image:
    """Returns noise with a bright head; every third photo has none, and sizes differ."""
    rng = np.random.default_rng([7, index])
    width, height = size or ((40, 80), (32, 96), (64, 64))[index % 7 % 3]
    pixels = rng.integers(0, 120, (height, width, 3), np.uint8)
    if index % 3:
        pixels[2:20, 8:24] = rng.integers(200, 256, 3)
    return Image.fromarray(pixels)


def draw_photos(folder: Path, count: int) -> list[str]:
    """Writes photos in two subfolders; returns their names relative to the folder, in order."""
    names = []
    for index in range(count):
        name = f"{'ab'[index % 2]}/{index:04d}.{('png', 'jpg')[index % 5 == 0]}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw_photo(index).save(folder / name)
        names.append(name)
    return sorted(names)


def weights(path: Path, content: str) -> Path:
    """Writes a file that stands for a checkpoint."""
    path.write_text(content)
    return path


def _checksum(path: Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class _Restorer:
    """What a loaded restorer is to the stage."""

    size, name, variables = FACE_SIZE, f"GPEN-BFR-{FACE_SIZE}", {"params": {"shift": np.float32(9)}}

    def __init__(self, checksum: str):
        self.checksum = checksum


def _parse_logits(parser: Parser, variables: Any, crops: Any) -> Any:
    grey = crops[:, ::4, ::4].astype(jnp.float32).mean(-1, keepdims=True)
    levels = jnp.asarray(variables["params"]["levels"])
    return -jnp.abs(grey - levels)


def _detect_raw(detector: Detector, variables: Any, images: Any, sizes: Any) -> Raw:
    """Says one face that scores as the head is bright, and one on the body; photos come enlarged 4 times."""
    head = images[:, 16:72, 40:88].astype(jnp.float32).mean((1, 2, 3)) * variables["params"]["gain"]
    scores = jnp.stack([jnp.clip(head / 250, 0, 1), jnp.full_like(head, 0.3)], 1)
    boxes = 4 * jnp.asarray([[8.0, 2.0, 24.0, 20.0], [10.0, 40.0, 20.0, 50.0]])
    points = 4 * jnp.asarray([[12.0, 8.0], [20.0, 8.0], [16.0, 12.0], [13.0, 16.0], [19.0, 16.0]])
    marks = jnp.stack([points, points + 100.0])
    count = len(images)
    return Raw(jnp.broadcast_to(boxes, (count, 2, 4)), scores, jnp.broadcast_to(marks, (count, 2, 5, 2)))


def _restore(restorer: Any, variables: Any, faces: Any) -> Any:
    return jnp.clip(faces.astype(jnp.float32) + variables["params"]["shift"], 0, 255).astype(jnp.uint8)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Has prepare use the tiny networks; any file is a checkpoint of theirs."""
    levels = np.linspace(0, 255, 20, dtype=np.float32)
    with (
        mock.patch.object(
            prepare, "load_parser", lambda p: Parser(LIP, PARSER_SIZE, {"params": {"levels": levels}}, _checksum(p))
        ),
        mock.patch.object(
            prepare,
            "load_detector",
            lambda p: Detector("mobilenet0.25", {"params": {"gain": np.float32(1)}}, _checksum(p)),
        ),
        mock.patch.object(prepare, "load_restorer", lambda p: _Restorer(_checksum(p))),
        mock.patch.object(parse, "parse_logits", _parse_logits),
        mock.patch.object(detect, "detect_raw", _detect_raw),
        mock.patch.object(restore, "restore", _restore),
    ):
        yield


def run(arguments: Sequence[str]) -> int:
    """Runs the command with the tiny networks; returns its exit code."""
    with installed():
        return prepare.main(list(arguments))


def flags(folder: Path, images: Path, out: Path, *more: str) -> list[str]:
    """Returns the command line of a whole run, with checkpoints in `folder`."""
    files = {name: weights(folder / name, name) for name in ("parser", "detector", "restorer")}
    networks = [f"--{name}={file}" for name, file in files.items()]
    return [f"--images={images}", f"--out={out}", *networks, "--batch=4", "--workers=2", *more]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextlib.contextmanager
def dying(number: signal.Signals, at: int) -> Iterator[None]:
    """Has the process get a signal while it writes its `at`-th file: half of it is there, under whatever name."""
    left, real = iter(range(at - 1, -1, -1)), os.fsync

    def fsync(descriptor: int) -> None:
        file = f"/proc/self/fd/{descriptor}"
        if not os.path.isdir(file) and next(left, -1) == 0:
            if number == signal.SIGKILL:
                os.truncate(file, os.path.getsize(file) // 2)
            os.kill(os.getpid(), number)
        real(descriptor)

    with mock.patch.object(os, "fsync", fsync):
        yield


if __name__ == "__main__":
    name, _, count = sys.argv[1].rpartition(":")
    with dying(signal.SIGTERM if name == "term" else signal.SIGKILL, int(count)):
        code = run(sys.argv[2:])
    sys.exit(code)
