"""Embeds the photos of a job and writes each part of its output as soon as the part is complete."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np

from deskpro_jax.data.image_report import Remarks
from deskpro_jax.embedding.files import Part
from deskpro_jax.embedding.job import Unreadable, Work
from deskpro_jax.embedding.photo_list import Listed
from deskpro_jax.errors import Stopped
from deskpro_jax.runtime.progress import Progress
from deskpro_jax.runtime.signals import SignalGuard

if TYPE_CHECKING:
    from deskpro_jax.embedding.embedder import Block, Pair


class Streaming(Protocol):
    """What embeds: an `Embedder`, as far as it is used here."""

    batch: int
    dimension: int

    def stream(self, pairs: Iterator[Pair], *, faces: bool) -> Generator[Block]:
        """Embeds photos batch by batch."""
        ...


def embed_photos(
    embedder: Streaming, work: Work, todo: Sequence[int], *, name: str = "embedding", show: bool = True
) -> Remarks:
    """Embeds the photos of some parts and writes each part as soon as it is whole.

    Args:
        embedder: what embeds.
        work: the output, begun.
        todo: numbers of the parts, as `work.begin` gives them.
        name: what the progress line calls it.
        show: whether there is a progress line.

    Returns:
        What is worth knowing of the photos.

    Raises:
        Stopped: on SIGTERM or Ctrl-C.
    """
    sizes = {number: work.ranges[number + 1] - work.ranges[number] for number in todo}
    total = sum(sizes.values())
    taken: deque[Listed] = deque()

    def pairs() -> Iterator[Pair]:
        for photo in work.photos(todo):
            taken.append(photo)
            yield photo.path, photo.face

    writing: Future[None] | None = None
    remarks = Remarks()
    with (
        SignalGuard() as guard,
        contextlib.closing(embedder.stream(pairs(), faces=work.with_face > 0)) as blocks,
        Progress(total, name, images_per_step=1, enabled=show and total > 0) as progress,
        ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
    ):
        for number in todo:
            part = _Collected(np.zeros((sizes[number], embedder.dimension), np.float32), remarks=remarks)
            while part.taken < sizes[number] and not guard.requested:
                block = next(blocks)
                part.add(block, [taken.popleft() for _ in range(len(block.embeddings))])
                progress.advance(steps=len(block.embeddings))
            if writing is not None:  # at most one part waits, so that memory stays bounded
                writing.result()
            if part.taken < sizes[number]:
                raise Stopped(f"{guard.requested}: stopped; the same command continues from there.")
            writing = writer.submit(work.write, number, part.part(), part.unreadable)
        if writing is not None:
            writing.result()
    return remarks


@dataclasses.dataclass
class _Collected:
    """A part as it fills."""

    embeddings: np.ndarray
    photos: list[Listed] = dataclasses.field(default_factory=list)
    has_face: list[bool] = dataclasses.field(default_factory=list)
    sha256: list[str | None] = dataclasses.field(default_factory=list)
    remarks: Remarks = dataclasses.field(default_factory=Remarks)
    unreadable: list[Unreadable] = dataclasses.field(default_factory=list)
    taken: int = 0

    def add(self, block: Block, photos: Sequence[Listed]) -> None:
        self.taken += len(photos)
        for row, photo in enumerate(photos):
            if row in block.failures:
                self.unreadable.append(Unreadable(photo.image_id, photo.path, block.failures[row]))
                continue
            self.embeddings[len(self.photos)] = block.embeddings[row]
            self.photos.append(photo)
            self.has_face.append(bool(block.has_face[row]))
            self.sha256.append(block.sha256.get(row))
            self.remarks.add(photo.path, block.remarks.get(row, ()))

    def part(self) -> Part:
        has_face = np.array(self.has_face, bool)
        return Part(self.photos, has_face, self.embeddings[: len(self.photos)], self.sha256)
