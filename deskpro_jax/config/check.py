"""Checks the fields of a configuration that concern the whole run: `seed`, `mesh.*`, `compilation_cache`."""

from __future__ import annotations

import ml_collections

from deskpro_jax.config import expect
from deskpro_jax.errors import InputError

_LARGEST_SEED = 2**32 - 1  # jax drops the digits above


def check(config: ml_collections.ConfigDict) -> None:
    """Checks `seed`, `mesh.*` and `compilation_cache`; how many devices there are is looked up by `make_mesh`.

    Raises:
        InputError: a field has a value that cannot be used; the message names it.
    """
    expect.integer(config, "seed", least=0, most=_LARGEST_SEED)
    if expect.integer(config, "mesh.data", least=-1) == 0:
        raise InputError("mesh.data is 0; it must be a number of devices >= 1, or -1 for all of them.")
    expect.integer(config, "mesh.model", least=1)
    expect.text(config, "compilation_cache")
