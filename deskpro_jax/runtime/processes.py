"""What several processes of one run decide together; with a single process every call is free."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

_TEXT_BYTES = 400  # the longest text that process 0 tells the others


def agree(flag: bool) -> bool:
    """Returns True in every process when `flag` is true in any of them.

    With several processes it is a collective over all devices, so that every process calls it at the same steps; call
    it every few steps and not at each one.

    Args:
      flag: this process's own view.
    """
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray([flag], np.int32))))


def total_of(count: int) -> int:
    """Returns the sum of the counts of all processes, a collective as `agree` is.

    Args:
      count: this process's own.
    """
    if jax.process_count() == 1:
        return count
    return int(np.sum(multihost_utils.process_allgather(np.asarray([count], np.int32))))


def any_of(flags: np.ndarray) -> np.ndarray:
    """Returns which flags are set in any process, a collective as `agree` is.

    Args:
      flags: [n] bool, this process's own; of the same length in every process.
    """
    if jax.process_count() == 1:
        return flags
    return np.any(multihost_utils.process_allgather(flags), axis=0)


def from_first(compute: Callable[[], str]) -> str:
    """Returns in every process the text that process 0 computes; nobody goes on before it is known.

    Args:
      compute: called in process 0 alone; the first 400 bytes of its result count.
    """
    if jax.process_count() == 1:
        return compute()
    text = compute().encode()[:_TEXT_BYTES] if jax.process_index() == 0 else b""
    sent = np.frombuffer(text.ljust(_TEXT_BYTES, b"\0"), np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(sent)).astype(np.uint8)
    return received.tobytes().rstrip(b"\0").decode(errors="replace")
