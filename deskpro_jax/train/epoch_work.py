"""Work before each epoch (clustering): further fields of the batch, and new parameters of terms of the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import EpochStart, Recipe, TrainingImages
from deskpro_jax.runtime import sharding
from deskpro_jax.storage.files import atomic_path
from deskpro_jax.train import optimisers
from deskpro_jax.train.step import TrainState

FILE = "epoch_fields.npz"  # in the phase's folder: what the epoch under way began with, so that a run resumes with it
_EPOCH = "epoch"
_PARAMETER = "parameter/"  # in front of TERM/NAME, beside the fields

Batch = dict[str, np.ndarray]


class EpochWork:
    """What `Recipe.between_epochs` gives each epoch."""

    def __init__(
        self, recipe: Recipe, folder: Path, epoch_steps: int, images: Callable[[Any], TrainingImages] | None
    ) -> None:
        """Prepares the work of a phase.

        Args:
            recipe: of the phase.
            folder: `<workdir>/<phase>`.
            epoch_steps: steps of an epoch.
            images: variables of the module -> the training images in the order of their `index`; needed where the
                recipe has work between epochs.
        """
        self._work, self._images = recipe.between_epochs, images
        self._path, self._epoch_steps = folder / FILE, epoch_steps
        self._epoch, self._start = -1, EpochStart()

    def begin(self, step: int, variables: Any) -> EpochStart | None:
        """Returns the fields and parameters of an epoch before its first step, None before any other step.

        In the middle of an epoch that a run before this one began its fields are read, and its parameters are those
        of the checkpoint.

        Args:
            step: steps done.
            variables: of the module that is trained; read when an epoch begins.

        Raises:
            InputError: the work does not give one value for each image.
        """
        epoch = step // self._epoch_steps
        if self._work is None or self._images is None or epoch == self._epoch:
            return None
        self._start, self._epoch = self._read(epoch) or self._compute(epoch, variables), epoch
        return self._start if step % self._epoch_steps == 0 else None

    def add_fields(self, batch: Batch) -> Batch:
        """Returns a batch with the fields of its epoch in place of `index`, which says where its images are.

        Raises:
            InputError: the batch has one of them already.
        """
        if self._work is None or self._images is None:
            return batch
        index = np.maximum(batch.pop("index"), 0)
        if twice := sorted(self._start.fields.keys() & batch.keys()):
            raise InputError(f"between_epochs returns {twice[0]!r}; expected a field that the batch does not have.")
        return batch | {name: values[index] for name, values in self._start.fields.items()}

    def _compute(self, epoch: int, variables: Any) -> EpochStart:
        assert self._work is not None
        assert self._images is not None
        images = self._images(variables)
        start = self._work(epoch, images)
        fields = {name: np.asarray(values) for name, values in start.fields.items()}
        for name, values in fields.items():
            if values.shape[:1] != images.identity.shape:
                raise InputError(
                    f"between_epochs returns {name!r} of shape {values.shape}; expected one value for each of the"
                    f" {len(images.identity)} training images."
                )
        start = EpochStart(fields, start.parameters)
        if jax.process_index() == 0:
            parameters = {
                f"{_PARAMETER}{term}/{name}": np.asarray(value)
                for term, own in start.parameters.items()
                for name, value in own.items()
            }
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self._path) as temporary, temporary.open("wb") as file:
                np.savez(file, **{_EPOCH: np.asarray(epoch)}, **fields, **parameters)  # type: ignore[arg-type]
        return start

    def _read(self, epoch: int) -> EpochStart | None:
        """Returns the fields and parameters of an epoch that an earlier run began, None where there are none."""
        if not self._path.exists():
            return None
        with np.load(self._path) as stored:
            if int(stored[_EPOCH]) != epoch:
                return None
            fields, parameters = dict[str, np.ndarray](), dict[str, dict[str, np.ndarray]]()
            for key in stored.files:
                if key.startswith(_PARAMETER):
                    term, _, name = key.removeprefix(_PARAMETER).rpartition("/")
                    parameters.setdefault(term, {})[name] = stored[key]
                elif key != _EPOCH:
                    fields[key] = stored[key]
        return EpochStart(fields, parameters)


def with_new_parameters(state: TrainState, start: EpochStart, optimizer: Any, mesh: Mesh) -> TrainState:
    """Returns the state at the beginning of an epoch: with its new parameters, and the optimiser's moments at zero.

    Args:
        state: after the epoch before.
        start: of the epoch; without parameters the state stays as it is.
        optimizer: of the phase.
        mesh: the devices.
    """
    if not start.parameters:
        return state
    own = dict(state.params[optimisers.LOSS])
    for term, values in start.parameters.items():
        own[term] = {**own[term], **sharding.put_variables(mesh, values)}
    params = {**state.params, optimisers.LOSS: own}
    anew = lambda params, before: optimisers.anew(optimizer, params, before)  # noqa: E731
    shapes = jax.eval_shape(anew, params, state.opt_state)
    opt_state = jax.jit(anew, out_shardings=sharding.placement(mesh, shapes))(params, state.opt_state)
    return state.replace(params=params, opt_state=opt_state)


def with_saved_shapes(variables: Mapping[str, Any], saved: Any) -> dict[str, Any]:
    """Returns variables in which parameters of terms have the shapes of a saved state: their number may have changed.

    Args:
        variables: of the module, with the parameters that terms have for themselves.
        saved: the tree of the saved state, its leaves with `shape`.
    """
    own = variables["params"].get(optimisers.LOSS, {})
    before = saved.get("params", {}).get(optimisers.LOSS, {})

    def shaped(term: str, name: str, value: Any) -> Any:
        old = before.get(term, {}).get(name)
        return value if old is None else jax.ShapeDtypeStruct(tuple(old.shape), value.dtype)

    own = {term: {name: shaped(term, name, value) for name, value in values.items()} for term, values in own.items()}
    return {**variables, "params": {**variables["params"], **({optimisers.LOSS: own} if own else {})}}
