"""Runs the shards of a build in processes of this machine, and shows how far it is."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import rich.console
import rich.progress

from deskpro_jax.data.build.shards import IMAGES, Shard, write_shard
from deskpro_jax.errors import RunError

_EVERY = 10.0  # seconds between lines where there is no terminal


def run_local(shards: Sequence[Shard], workers: int = 0, shown: bool = True) -> None:
    """Writes shards; those that are there already are not written again.

    Args:
        shards: what to write.
        workers: processes that write; 0 writes in this one.
        shown: whether progress is shown on standard error.

    Raises:
        RunError: a process died.
    """
    total = sum(len(shard.sources) for shard in shards)
    with _progress(total, shown) as advance:
        if workers < 2 or total < 2 * IMAGES:  # starting a process takes longer
            for shard in shards:
                write_shard(shard)
                advance(len(shard.sources))
            return
        context = multiprocessing.get_context("spawn")  # forking a process that runs jax's threads can hang
        pool = concurrent.futures.ProcessPoolExecutor(
            min(workers, len(shards)), mp_context=context, initializer=_end_with_parent
        )
        with pool:
            try:
                waiting = {pool.submit(write_shard, shard): shard for shard in shards}
                for future in concurrent.futures.as_completed(waiting):
                    future.result()
                    advance(len(waiting[future].sources))
            except concurrent.futures.process.BrokenProcessPool as error:
                raise RunError(
                    "a process of the build died, as it does without memory: run the same command again, with fewer "
                    "--workers if that was it; finished shards are kept"
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, however that went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the pool
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


@contextlib.contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of further images that are done."""
    if shown and sys.stderr.isatty():
        columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
        with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True), transient=True) as bar:
            task = bar.add_task("images", total=total)
            yield lambda count: bar.advance(task, count)
        return
    done, reported = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, reported
        done += count
        if shown and time.monotonic() - reported > _EVERY:
            print(f"{done:,} of {total:,} images", file=sys.stderr, flush=True)
            reported = time.monotonic()

    yield advance
