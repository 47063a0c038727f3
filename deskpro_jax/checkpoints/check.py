"""Checks the fields of a configuration that say when checkpoints are written: `checkpoint.*`."""

from __future__ import annotations

import ml_collections

from deskpro_jax.config import expect


def check(config: ml_collections.ConfigDict) -> None:
    """Checks `checkpoint.*`.

    Raises:
        InputError: a field has a value that cannot be used; the message names it.
    """
    expect.integer(config, "checkpoint.every", least=0)
    expect.boolean(config, "checkpoint.asynchronous")
