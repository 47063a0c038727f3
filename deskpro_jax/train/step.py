"""One training step: state, loss of each phase, gradient, update. Pure functions; `loop.py` repeats them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from deskpro_jax.data.load import augment
from deskpro_jax.errors import InputError
from deskpro_jax.losses.extra import extra_terms
from deskpro_jax.models.contract import Inputs, LossTerm, Outputs, Recipe, StepValues
from deskpro_jax.models.streams import with_choices
from deskpro_jax.runtime import sharding
from deskpro_jax.runtime.compilation import compiler_options
from deskpro_jax.train.optimisers import LOSS
from deskpro_jax.train.total_loss import first_steps, loss_terms

TEACHER_STATISTICS = ("running", "batch")
NORMS = ("gradient_norm", "parameter_norm", "update_norm")  # logged with the loss terms, no part of the loss

Terms = dict[str, Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything a phase changes from step to step."""

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that `module.apply` takes: without the parameters that terms of the loss have."""
        return {"params": _of_module(self.params), "batch_stats": self.batch_stats}


def create_state(variables: Mapping[str, Any], optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    params = variables["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), optimizer.init(params))


def _of_module(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tree for name, tree in params.items() if name != LOSS}


def fold(key: Array, *purposes: str | int | Array) -> Array:
    """Derives a key for a named purpose: names and numbers are folded in one after the other."""
    for purpose in purposes:
        key = jax.random.fold_in(key, zlib.crc32(purpose.encode()) if isinstance(purpose, str) else purpose)
    return key


def teacher_outputs(
    teacher: nn.Module,
    variables: Mapping[str, Any],
    inputs: Inputs,
    statistics: str = "running",
    mesh: Mesh | None = None,
    dropout: Array | None = None,
) -> dict[str, dict[str, Array]]:
    """Runs the frozen teacher.

    Args:
        teacher: the teacher's module.
        variables: its parameters and running statistics; no gradient flows into them.
        inputs: the batch, images normalised.
        statistics: "running", or "batch" as in the released code (batch statistics, and the top-drop block drops).
        mesh: whose model axis the logits are split over, if it has one.
        dropout: key of its dropout layers, where "batch" runs them.

    Returns:
        Its outputs by stream.
    """
    if statistics not in TEACHER_STATISTICS:
        raise InputError(f"teacher.statistics is {statistics!r}; expected one of {', '.join(TEACHER_STATISTICS)}.")
    variables = sharding.in_step(mesh, variables)
    if statistics == "batch":
        (outputs, _), _ = teacher.apply(variables, inputs, train=True, mutable=["batch_stats"], rngs=_rngs(dropout))
    else:
        outputs, _ = teacher.apply(variables, inputs, train=False)
    return jax.lax.stop_gradient(_split_logits(mesh, outputs))


def _rngs(dropout: Array | None) -> dict[str, Array]:
    return {} if dropout is None else {"dropout": dropout}


def _split_logits(mesh: Mesh | None, outputs: Outputs) -> dict[str, dict[str, Array]]:
    return {name: {**out, "logits": sharding.split_logits(mesh, out["logits"])} for name, out in outputs.items()}


def norms(gradients: Any, params: Any, updates: Any) -> Terms:
    """Returns the L2 norms of gradients, parameters and updates, each over all of its arrays, for the metrics.

    Args:
        gradients: of the loss, a tree of arrays.
        params: before the step, of the same structure.
        updates: what the optimiser adds to the parameters, learning rate included.

    Returns:
        Scalars by the names in `NORMS`.
    """
    return {name: optax.tree.norm(tree) for name, tree in zip(NORMS, (gradients, params, updates), strict=True)}


def update(
    state: TrainState,
    inputs: Inputs,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    losses: Sequence[LossTerm],
    teacher: Outputs | None = None,
    mesh: Mesh | None = None,
    epoch: Array | int = 0,
    dropout: Array | None = None,
    classifiers_only: bool = False,
) -> tuple[TrainState, Terms, Any]:
    """Takes one optimisation step on a batch of normalised inputs.

    Args:
        state: before the step.
        inputs: normalised images, masks, labels and validity.
        module: the model.
        optimizer: see `train/optimisers.py`.
        losses: the terms of the loss.
        teacher: outputs of the frozen teacher, by stream; None without one.
        mesh: whose model axis classifiers and logits are split over, if it has one.
        epoch: epochs done, for the weights of terms.
        dropout: key of the model's dropout layers, if it has any.
        classifiers_only: whether everything else runs as in evaluation and gets no gradient (`train.freeze_epochs`).

    Returns:
        The state after the step, the loss terms with their `total` and the norms, and the gradients.
    """

    def loss(params: Any) -> tuple[Array, tuple[Terms, Any, Any]]:
        if classifiers_only:
            params = _only_classifiers_learn(params)
        params = sharding.in_step(mesh, params)
        variables = {"params": _of_module(params), "batch_stats": state.batch_stats}
        if classifiers_only:
            outputs, middle = module.apply(variables, inputs, train=False)
            statistics = state.batch_stats
        else:
            (outputs, middle), moved = module.apply(
                variables, inputs, train=True, mutable=["batch_stats"], rngs=_rngs(dropout)
            )
            statistics = moved.get("batch_stats", {})
        own = params.get(LOSS, {})
        values = StepValues(_split_logits(mesh, outputs), middle, inputs, teacher or {}, epoch, parameters_of=own)
        before: Terms = {}
        first: dict[str, Any] = {}
        if takes_first:
            stepped, before, first = first_steps(values, losses, optimizer, state.params, state.opt_state)
            values = values._replace(parameters_of={**own, **stepped})
        total, terms = loss_terms(values, losses)
        return total, ({**terms, **before}, statistics, first)

    takes_first = any(term.first for term in losses)
    (total, (terms, batch_stats, first)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    if takes_first:
        grads = {**grads, LOSS: {**grads[LOSS], **first}}
    changes, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, changes)
    logged = {**terms, "total": total, **norms(grads, state.params, changes)}
    return TrainState(state.step + 1, params, batch_stats, opt_state), logged, grads


def _only_classifiers_learn(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if sharding.is_classifier(path) else jax.lax.stop_gradient(leaf), params
    )


def make_train_step(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    config: ml_collections.ConfigDict,
    recipe: Recipe,
    teacher: nn.Module | None = None,
    steps_per_epoch: int = 1,
    mesh: Mesh | None = None,
    classifiers_only: bool = False,
) -> Callable[[TrainState, Any, Mapping[str, Array], Array], tuple[TrainState, Terms]]:
    """Returns the step of a phase, to be jitted.

    Args:
        module: the model that is trained.
        optimizer: see `train/optimisers.py`.
        config: the whole configuration; `loss.extra` adds terms to those of the recipe.
        recipe: the phase's.
        teacher: module of the frozen teacher.
        steps_per_epoch: decides with `augment.shared_draws` which steps of an epoch share their draw.
        mesh: the devices; needed where `mesh.model` splits the classifiers.
        classifiers_only: whether it is a step of `train.freeze_epochs`.

    Returns:
        `step(state, teacher_variables, batch, key)`: `batch` holds uint8 images as the pipeline yields
        them, `key` is the phase's key. Augmentation happens here, on the device, fresh for every step.
    """
    trained = with_choices(module, remat=config.train.remat, depthwise=config.train.depthwise)
    losses = (*recipe.losses, *extra_terms(config.loss.extra))

    def step(
        state: TrainState, teacher_variables: Any, batch: Mapping[str, Array], key: Array
    ) -> tuple[TrainState, Terms]:
        purpose = augment.draw_of_step(state.step, steps_per_epoch, config.augment.shared_draws)
        inputs = dict(augment.augment_batch(fold(key, "augment", *purpose), dict(batch), config.augment))
        if recipe.augment is not None:
            inputs = dict(recipe.augment(fold(key, state.step, "augment of the recipe"), inputs))
        outputs = None
        if teacher is not None:
            dropout = fold(key, state.step, "teacher dropout")
            statistics = config.teacher.statistics
            outputs = teacher_outputs(teacher, teacher_variables, inputs, statistics, mesh, dropout)
        epoch, dropout = state.step // steps_per_epoch, fold(key, state.step, "dropout")
        state, terms, _ = update(
            state, inputs, trained, optimizer, losses, outputs, mesh, epoch, dropout, classifiers_only
        )
        return state, terms

    return step


def jit_step(step: Callable[..., tuple[TrainState, Terms]], mesh: Mesh, state: Any, teacher_variables: Any) -> Any:
    """Returns the jitted step: states stay in place on the mesh and are donated, batches are split over it.

    Args:
        step: from `make_train_step`.
        mesh: the devices.
        state: the training state, or anything of its structure and shapes.
        teacher_variables: of the frozen teacher, or their shapes; None without one.
    """
    whole, kept = sharding.replicated(mesh), sharding.placement(mesh, state)
    return jax.jit(
        step,
        in_shardings=(kept, sharding.placement(mesh, teacher_variables), sharding.split_batch(mesh), whole),
        out_shardings=(kept, whole),
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )
