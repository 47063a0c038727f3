"""Datasets that a fork adds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from deskpro_jax.errors import InputError


def add_dataset(name: str, layout: Any, protocols: Sequence[Any]) -> None:
    """Adds a dataset, to be called in the file of its configuration before `data.name` is set.

    Args:
        name: for `data.name`; a second call with the same name replaces the first.
        layout: its folders and file names, a `deskpro_jax.data.datasets.layouts.Layout`.
        protocols: under which it is reported, each a `deskpro_jax.data.datasets.protocols.Protocol`.

    Raises:
        InputError: the name is one of the package's own or no plain name, or there is no protocol.
    """
    from deskpro_jax.data.datasets import layouts
    from deskpro_jax.data.datasets.protocols import PROTOCOLS
    from deskpro_jax.data.load import dataset

    if name in dataset.NAMES:
        raise InputError(f"a dataset {name!r} comes with the package: choose another name.")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"{name!r} is no name of a dataset; expected small letters, digits and _, as my_photos.")
    if not protocols:
        raise InputError(f"dataset {name!r} has no protocols: give at least one.")
    layouts.LAYOUTS[name], PROTOCOLS[name] = layout, tuple(protocols)
