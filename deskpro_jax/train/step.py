"""One training step: state, loss of each phase, gradient, update. Pure functions; `loop.py` repeats them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from deskpro_jax import losses
from deskpro_jax.data.load import augment
from deskpro_jax.errors import InputError
from deskpro_jax.losses import extra
from deskpro_jax.methods.deskpro import DeSKPro
from deskpro_jax.models.lmbn import TRIPLET_PARTS
from deskpro_jax.runtime import sharding
from deskpro_jax.runtime.compilation import compiler_options

TEACHER_STATISTICS = ("running", "batch")
NORMS = ("gradient_norm", "parameter_norm", "update_norm")  # logged with the loss terms, no part of the loss

Inputs = Mapping[str, Array]  # a Batch whose images are normalised floats
Terms = dict[str, Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything a phase changes from step to step."""

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that `module.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(variables: Mapping[str, Any], optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    params = variables["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), optimizer.init(params))


def fold(key: Array, *purposes: str | int | Array) -> Array:
    """Derives a key for a named purpose: names and numbers are folded in one after the other."""
    for purpose in purposes:
        key = jax.random.fold_in(key, zlib.crc32(purpose.encode()) if isinstance(purpose, str) else purpose)
    return key


def draw_of_step(step: Array, steps_per_epoch: int, shared_draws: int) -> tuple[Array, ...]:
    """Returns what the augmentation of a step is drawn from: the step, or (`augment.shared_draws`) epoch and draw."""
    if not shared_draws:
        return (step,)
    return step // steps_per_epoch, step % steps_per_epoch % shared_draws


def teacher_logits(
    teacher: DeSKPro,
    variables: Mapping[str, Any],
    inputs: Inputs,
    statistics: str = "running",
    mesh: Mesh | None = None,
    dropout: Array | None = None,
) -> Array:
    """Runs the frozen teacher on the restored faces.

    Args:
        teacher: the teacher's module.
        variables: its parameters and running statistics; no gradient flows into them.
        inputs: needs `restored_face` and `has_face`.
        statistics: "running", or "batch" as in the released code (batch statistics, and the top-drop block drops).
        mesh: whose model axis the logits are split over, if it has one.
        dropout: key of its dropout layers, where "batch" runs them.

    Returns:
        Logits [7, batch, classes].
    """
    if statistics not in TEACHER_STATISTICS:
        raise InputError(f"teacher.statistics is {statistics!r}; expected one of {', '.join(TEACHER_STATISTICS)}.")
    args = (None, inputs["restored_face"], inputs["valid"] & inputs["has_face"])
    variables = sharding.in_step(mesh, variables)
    if statistics == "batch":
        (outputs, _), _ = teacher.apply(variables, *args, train=True, mutable=["batch_stats"], rngs=_rngs(dropout))
    else:
        outputs, _ = teacher.apply(variables, *args, train=False)
    return jax.lax.stop_gradient(sharding.split_logits(mesh, outputs["face"]["logits"]))


def _rngs(dropout: Array | None) -> dict[str, Array]:
    return {} if dropout is None else {"dropout": dropout}


def loss_terms(
    outputs: Mapping[str, Mapping[str, Array]],
    intermediates: Mapping[str, Mapping[str, Array]],
    inputs: Inputs,
    config: ml_collections.ConfigDict,
    logits_of_teacher: Array | None = None,
) -> Terms:
    """Computes the terms of Eq. 7 that the streams and the batch allow.

    Args:
        outputs: of the model, by stream.
        intermediates: of the model, by stream; `attention` of the body stream is used if it is there.
        inputs: the batch.
        config: `config.loss`.
        logits_of_teacher: [7, batch, classes]; without it there is no `kd`.

    Returns:
        Scalars by name, see `losses.total_loss`.
    """
    labels, valid = inputs["identity"], inputs["valid"]
    terms: Terms = {}
    for stream, out in outputs.items():
        rows = valid & inputs["has_face"] if stream == "face" else valid
        features = out["features"][jnp.asarray(TRIPLET_PARTS)]
        triplet = losses.batch_hard_triplet(features, labels, rows, margin=config.margin, soft=config.soft_margin)
        entropy = losses.cross_entropy(out["logits"], labels, rows, smoothing=config.label_smoothing)
        terms[f"triplet_{stream}"], terms[f"ce_{stream}"] = triplet.sum(), entropy.sum()
    attention = intermediates.get("body", {}).get("attention")
    if attention is not None and config.attention_weight:
        terms["attention"] = losses.attention_loss(
            attention,
            inputs["cloth_mask"],
            valid & inputs["has_mask"],
            epsilon=config.mask_epsilon,
            rule=config.mask_rule,
        )
    if logits_of_teacher is not None and "face" in outputs:
        terms["kd"] = losses.knowledge_propagation(
            logits_of_teacher,
            outputs["face"]["logits"],
            valid & inputs["has_face"],
            temperature=config.temperature,
        )
    added = extra.added_terms(config.extra)
    if taken := sorted(terms.keys() & added.keys() | {"total"} & added.keys()):
        raise InputError(f"loss.extra has a function called {taken[0]!r}, which is a term already: rename it.")
    return terms | {name: term(outputs, intermediates, inputs) for name, term in added.items()}


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
    module: DeSKPro,
    optimizer: optax.GradientTransformation,
    config: ml_collections.ConfigDict,
    logits_of_teacher: Array | None = None,
    mesh: Mesh | None = None,
    dropout: Array | None = None,
) -> tuple[TrainState, Terms, Any]:
    """Takes one optimisation step on a batch of normalised inputs.

    Args:
        state: before the step.
        inputs: normalised images, masks, labels and validity, see `loss_terms`.
        module: the model.
        optimizer: see `optim.adam`.
        config: `config.loss`.
        logits_of_teacher: see `loss_terms`.
        mesh: whose model axis classifiers and logits are split over, if it has one.
        dropout: key of the model's dropout layers, if it has any.

    Returns:
        The state after the step, the loss terms with their `total` and the norms, and the gradients.
    """

    def loss(params: Any) -> tuple[Array, tuple[Terms, Any]]:
        (outputs, middle), moved = module.apply(
            {"params": sharding.in_step(mesh, params), "batch_stats": state.batch_stats},
            inputs.get("body"),
            inputs.get("face"),
            inputs["valid"] & inputs["has_face"],
            inputs["valid"],
            train=True,
            mutable=["batch_stats"],
            rngs=_rngs(dropout),
        )
        outputs = {name: {**out, "logits": sharding.split_logits(mesh, out["logits"])} for name, out in outputs.items()}
        terms = loss_terms(outputs, middle, inputs, config, logits_of_teacher)
        total = losses.total_loss(
            terms,
            attention_weight=config.attention_weight,
            alpha=config.alpha,
            triplet_weight=config.triplet_weight,
        )
        return total, (terms, moved.get("batch_stats", {}))

    (total, (terms, batch_stats)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    changes, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, changes)
    logged = {**terms, "total": total, **norms(grads, state.params, changes)}
    return TrainState(state.step + 1, params, batch_stats, opt_state), logged, grads


def make_train_step(
    module: DeSKPro,
    optimizer: optax.GradientTransformation,
    config: ml_collections.ConfigDict,
    phase: str,
    teacher: DeSKPro | None = None,
    steps_per_epoch: int = 1,
    mesh: Mesh | None = None,
) -> Callable[[TrainState, Any, Mapping[str, Array], Array], tuple[TrainState, Terms]]:
    """Returns the step of a phase, to be jitted.

    Args:
        module: the model that is trained.
        optimizer: see `optim.adam`.
        config: the whole configuration.
        phase: "teacher" trains the face stream on restored faces, "student" on low-resolution ones.
        teacher: module of the frozen teacher, for L_fkp.
        steps_per_epoch: decides with `augment.shared_draws` which steps of an epoch share their draw.
        mesh: the devices; needed where `mesh.model` splits the classifiers.

    Returns:
        `step(state, teacher_variables, batch, key)`: `batch` holds uint8 images as the pipeline yields
        them, `key` is the phase's key. Augmentation happens here, on the device, fresh for every step.
    """

    trained = module.clone(remat=config.train.remat)

    def step(
        state: TrainState, teacher_variables: Any, batch: Mapping[str, Array], key: Array
    ) -> tuple[TrainState, Terms]:
        purpose = draw_of_step(state.step, steps_per_epoch, config.augment.shared_draws)
        inputs = dict(augment.augment_batch(fold(key, "augment", *purpose), dict(batch), config.augment))
        logits = None
        if teacher is not None:
            dropout = fold(key, state.step, "teacher dropout")
            logits = teacher_logits(teacher, teacher_variables, inputs, config.teacher.statistics, mesh, dropout)
        if phase == "teacher":
            inputs["face"] = inputs["restored_face"]
        dropout = fold(key, state.step, "dropout")
        state, terms, _ = update(state, inputs, trained, optimizer, config.loss, logits, mesh, dropout)
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
