"""What several processes of one run decide together; with a single process every call is free.

With several processes each function is a collective over all devices: every process calls it at the same point, and
seldom (not at every step).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

_TEXT_BYTES = 400  # the longest text that process 0 sends


def any_process(flag: bool) -> bool:
    """Returns True in every process when `flag` is true in any of them.

    Args:
        flag: of this process.
    """
    return bool(any_process_each(np.asarray([flag]))[0])


def any_process_each(flags: np.ndarray) -> np.ndarray:
    """Returns for each flag whether it is set in any process.

    Args:
        flags: [n] bool, of this process; of the same length in every process.
    """
    if jax.process_count() == 1:
        return flags
    return np.any(multihost_utils.process_allgather(flags), axis=0)


def sum_over_processes(count: int) -> int:
    """Returns the sum of the counts of all processes.

    Args:
        count: of this process.
    """
    if jax.process_count() == 1:
        return count
    return int(np.sum(multihost_utils.process_allgather(np.asarray([count], np.int32))))


def from_process_0(compute: Callable[[], str]) -> str:
    """Returns in every process the text that process 0 computes; all processes wait for it.

    Args:
        compute: called only in process 0; the first 400 bytes of its result are sent.
    """
    if jax.process_count() == 1:
        return compute()
    text = compute().encode()[:_TEXT_BYTES] if jax.process_index() == 0 else b""
    sent = np.frombuffer(text.ljust(_TEXT_BYTES, b"\0"), np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(sent)).astype(np.uint8)
    return received.tobytes().rstrip(b"\0").decode(errors="replace")
