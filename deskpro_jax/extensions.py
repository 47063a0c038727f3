"""What a fork imports to add a method, a dataset, a term of the loss or a backbone; the package does not import it."""

from __future__ import annotations

from typing import NoReturn

from deskpro_jax.data.datasets.protocols import Filter, Protocol
from deskpro_jax.data.datasets.spec import DatasetSpec, FileNames, PhotoFolder, Size, split_folders
from deskpro_jax.errors import InputError
from deskpro_jax.losses.extra import Term
from deskpro_jax.losses.terms import identity_terms, weighted_terms
from deskpro_jax.models.contract import Counts, LossTerm, Optimizer, PhaseSpec, Recipe, StepValues, StreamSpec
from deskpro_jax.models.osnet import Backbone

__all__ = [
    "Backbone",
    "Counts",
    "DatasetSpec",
    "FileNames",
    "Filter",
    "LossTerm",
    "Optimizer",
    "PhaseSpec",
    "PhotoFolder",
    "Protocol",
    "Recipe",
    "Size",
    "StepValues",
    "StreamSpec",
    "Term",
    "add_dataset",
    "identity_terms",
    "split_folders",
    "weighted_terms",
]


def add_dataset(*_: object, **__: object) -> NoReturn:
    """Raises an InputError that says how datasets are added now."""
    raise InputError(
        "add_dataset is no longer available: describe the dataset as a DatasetSpec in a module of your own and name it "
        "in the configuration, data.name = 'module:SPEC' (docs/forking.md)."
    )
