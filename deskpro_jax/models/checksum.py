"""The checksum of networks: the same wherever their variables are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.core import meta

from deskpro_jax.models.contract import CLASSIFIER


def checksum_of(variables: Sequence[Mapping[str, Any]]) -> str:
    """Returns the SHA-256 of names and values; classifiers, which no embedding depends on, stay out of it.

    Args:
        variables: of each network, as arrays on the host or on devices.
    """
    digest = hashlib.sha256()
    for values in variables:
        leaves = jax.tree_util.tree_leaves_with_path(dict(meta.unbox(values)))
        by_name = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        for name in sorted(by_name):
            if f"['{CLASSIFIER}" in name:
                continue
            value = np.ascontiguousarray(by_name[name])
            digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()
