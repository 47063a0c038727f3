"""Refuses to compute in a process that was forked after jax had started: without jax's threads it would hang."""

from __future__ import annotations

import os
import sys

from deskpro_jax.errors import RunError


class _Forks:
    """Whether jax had opened its devices when this process was forked."""

    open_before = False
    after_start = False

    def before(self) -> None:
        # In the parent, whose threads are all there: the function takes a lock. jax has no public name for it.
        bridge = sys.modules.get("jax._src.xla_bridge")
        self.open_before = bridge is not None and bridge.backends_are_initialized()

    def in_child(self) -> None:
        self.after_start |= self.open_before


_FORKS = _Forks()
os.register_at_fork(before=_FORKS.before, after_in_child=_FORKS.in_child)


def refuse_after_fork(what: str) -> None:
    """Raises RunError in a process that was forked after jax had opened its devices.

    Args:
        what: what cannot be done there, as the start of a sentence: "an Embedder cannot be used".
    """
    if _FORKS.after_start:
        raise RunError(
            f"{what} in a process that was forked after JAX had started, as it would hang: start the process with"
            " multiprocessing.get_context('spawn') and open the networks in it, or fork before anything is computed."
        )
