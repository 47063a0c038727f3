"""Takes photos through a stage: decoded ahead in threads, computed in batches of equal shape, written behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from data_prep.records import Row, StageRecords
from data_prep.stages.stage import Item, Stage
from deskpro_jax.data.images import UnreadableError
from deskpro_jax.errors import Stopped
from deskpro_jax.runtime.progress import Progress
from deskpro_jax.runtime.signals import SignalGuard


def run_stage(
    stage: Stage,
    records: StageRecords,
    guard: SignalGuard,
    *,
    workers: int,
    before: str | None = None,
    show: bool = True,
) -> None:
    """Does the chunks of a stage that have no record yet.

    At most two chunks of photos are in memory and two batches on the devices.

    Args:
        stage: the stage.
        records: the output folder.
        guard: its `requested` is set when a signal asked to stop.
        workers: threads that decode and write.
        before: the stage whose rows this one needs.
        show: whether there is a progress line.

    Raises:
        Stopped: on a signal, after the batches under way are written.
        RunError: a record is damaged.
        OSError: the output cannot be written.
    """
    done = records.done(stage.name)
    todo = [number for number in range(len(records.chunks)) if number not in done]
    left = sum(len(_present(records, number)) for number in todo)
    total = len(records.present)
    pool = ThreadPoolExecutor(workers, thread_name_prefix=stage.name)
    try:
        with Progress(total, stage.name, start=total - left, images_per_step=1, enabled=show and left > 0) as progress:
            behind: _Chunk | None = None
            for number, loads in _ahead(stage, records, todo, pool, before):
                chunk = _Chunk(stage, records, number, pool, progress)
                complete = chunk.start([load.result() for load in loads], guard, behind)
                if guard.requested:
                    chunk.close(record=complete)
                    raise Stopped(f"{guard.requested}: stopped in stage {stage.name}; the same command goes on.")
                behind = chunk
            if behind is not None:
                behind.close()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _present(records: StageRecords, number: int) -> list[str]:
    return [name for name in records.chunks[number] if name in records.present]


def _ahead(
    stage: Stage, records: StageRecords, todo: Sequence[int], pool: ThreadPoolExecutor, before: str | None
) -> Iterator[tuple[int, list[Future[Item]]]]:
    """Yields the chunks one after the other, the next one's photos being read already."""
    waiting: deque[tuple[int, list[Future[Item]]]] = deque()
    for number in todo:
        earlier = records.read(before, number) if before else {}
        loads = [pool.submit(_load, stage, name, earlier.get(name, {})) for name in _present(records, number)]
        waiting.append((number, loads))
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _load(stage: Stage, name: str, earlier: Row) -> Item:
    try:
        return stage.load(name, earlier)
    except UnreadableError as error:
        return Item(name, None, None, {"failure": str(error)})


class _Chunk:
    """A chunk under way: its rows as they come in, and its last batch on the devices."""

    def __init__(self, stage: Stage, records: StageRecords, number: int, pool: ThreadPoolExecutor, progress: Progress):
        self._stage, self._records, self._number = stage, records, number
        self._pool, self._progress = pool, progress
        self._rows: dict[str, Row] = {}
        self._computing: tuple[list[Item], Any] | None = None
        self._finishing: list[tuple[str, Future[Row]]] = []

    def start(self, items: Sequence[Item], guard: SignalGuard, behind: _Chunk | None) -> bool:
        """Has the batches computed, one always ahead of the one that is fetched; `behind` is closed meanwhile.

        Returns:
            Whether all were, which a signal can prevent.
        """
        complete = True
        self._rows = {item.name: item.row for item in items}
        self._progress.advance(steps=sum(item.array is None for item in items))
        for batch in _batches(self._stage, items):
            if guard.requested:
                complete = False
                break
            known = [self._stage.recall(item) for item in batch]
            if all(row is not None for row in known):
                self._rows |= {item.name: row for item, row in zip(batch, known, strict=True) if row is not None}
                self._progress.advance(steps=len(batch))
                continue
            answer = self._stage.compute(batch, _stack(batch, self._stage.rows(_array(batch[0]).shape)))
            if behind is not None:  # the chunk before kept its last batch on the devices until this one was there
                behind.close()
                behind = None
            self._fetch()
            self._computing = batch, answer
        if behind is not None:
            behind.close()
        return complete

    def _fetch(self) -> None:
        if self._computing is None:
            return
        batch, answer = self._computing
        self._computing = None
        host = jax.device_get(answer)
        for row, item in enumerate(batch):
            one = jax.tree.map(lambda leaf, row=row: leaf[row], host)
            self._finishing.append((item.name, self._pool.submit(_finish, self._stage, item, one)))
        self._progress.advance(steps=len(batch))

    def close(self, *, record: bool = True) -> None:
        """Waits until everything that was computed is written, then records the chunk."""
        self._fetch()
        for name, future in self._finishing:
            self._rows[name] = future.result()
        if record:
            self._records.write(self._stage.name, self._number, self._rows)


def _finish(stage: Stage, item: Item, answer: Any) -> Row:
    return stage.recall(item) or stage.finish(item, answer)


def _array(item: Item) -> np.ndarray:
    assert item.array is not None  # batches are made of items that have one
    return item.array


def _batches(stage: Stage, items: Sequence[Item]) -> Iterator[list[Item]]:
    """Groups by shape, in the order of the photos, so that a chunk always falls into the same batches."""
    groups: dict[tuple[int, ...], list[Item]] = {}
    for item in items:
        if item.array is not None:
            groups.setdefault(item.array.shape, []).append(item)
    for shape, group in groups.items():
        rows = stage.rows(shape)
        for start in range(0, len(group), rows):
            yield group[start : start + rows]


def _stack(items: Sequence[Item], rows: int) -> np.ndarray:
    """Returns the arrays of a batch, zeros behind them up to `rows`."""
    batch = np.zeros((rows, *_array(items[0]).shape), np.uint8)
    for row, item in enumerate(items):
        batch[row] = _array(item)
    return batch
