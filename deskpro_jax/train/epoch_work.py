"""Work before each epoch: further fields of the batch, from embeddings of the training images (clustering)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import Recipe
from deskpro_jax.storage.files import atomic_path

FILE = "epoch_fields.npz"  # in the phase's folder: the fields of the epoch under way, so that a run resumes with them
_EPOCH = "epoch"

Batch = dict[str, np.ndarray]


class EpochWork:
    """The fields that `Recipe.between_epochs` gives the training images of each epoch."""

    def __init__(self, recipe: Recipe, folder: Path, epoch_steps: int, embed: Callable[[Any], np.ndarray] | None):
        """Prepares the work of a phase.

        Args:
            recipe: of the phase.
            folder: `<workdir>/<phase>`.
            epoch_steps: steps of an epoch.
            embed: variables -> embeddings [images, dimension] of the training images, in the order of their `index`;
                needed where the recipe has work between epochs.
        """
        self._work, self._embed = recipe.between_epochs, embed
        self._path, self._epoch_steps = folder / FILE, epoch_steps
        self._epoch, self._fields = -1, dict[str, np.ndarray]()

    def add_fields(self, batch: Batch, step: int, variables: Any) -> Batch:
        """Returns a batch with the fields of its epoch in place of `index`, which says where its images are.

        Args:
            batch: of the host, as `pipeline.train_batches` yields it.
            step: steps done before it.
            variables: of the module that is trained; read when an epoch begins.

        Raises:
            InputError: the work gives fields that the batch has already, or not one value per image.
        """
        if self._work is None or self._embed is None:
            return batch
        epoch, index = step // self._epoch_steps, batch.pop("index")
        if epoch != self._epoch:
            self._fields = self._read(epoch) or self._compute(epoch, variables, batch)
            self._epoch = epoch
        return batch | {name: values[np.maximum(index, 0)] for name, values in self._fields.items()}

    def _compute(self, epoch: int, variables: Any, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        assert self._work is not None
        assert self._embed is not None
        embeddings = self._embed(variables)
        fields = {name: np.asarray(values) for name, values in self._work(epoch, embeddings).items()}
        for name, values in fields.items():
            if name in batch or values.shape[:1] != (len(embeddings),):
                raise InputError(
                    f"between_epochs returns {name!r} of shape {values.shape}; expected a field that the batch does not"
                    f" have, with one value for each of the {len(embeddings)} training images."
                )
        if jax.process_index() == 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self._path) as temporary, temporary.open("wb") as file:
                np.savez(file, **{_EPOCH: np.asarray(epoch)}, **fields)  # type: ignore[arg-type]
        return fields

    def _read(self, epoch: int) -> dict[str, np.ndarray] | None:
        """Returns the fields of an epoch that a run before this one began, None where there are none."""
        if not self._path.exists():
            return None
        with np.load(self._path) as stored:
            if int(stored[_EPOCH]) != epoch:
                return None
            return {name: stored[name] for name in stored.files if name != _EPOCH}
