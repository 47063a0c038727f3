"""What a fork imports to add a dataset, a term of the loss or a backbone; nothing in the package imports it."""

from __future__ import annotations

from deskpro_jax.data.datasets.added import add_dataset
from deskpro_jax.losses.extra import Term

__all__ = ["Term", "add_dataset"]
