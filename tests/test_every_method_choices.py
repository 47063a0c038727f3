"""Methods with other choices of the configuration: bfloat16, rematerialisation, several devices, frozen epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import runs
from configs import synthetic
from deskpro_jax import methods
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import Counts, image_sizes
from deskpro_jax.runtime import sharding
from deskpro_jax.train import optimisers
from deskpro_jax.train import state as state_
from deskpro_jax.train import step as train
from deskpro_jax.train.loss_terms import with_own_parameters
from test_every_method import CI_ONLY, CLASSES, Step

SCRIPT = Path(__file__).with_name("method_devices.py")
EMBEDDED = 3  # images
STEPS = ("pcb",)  # what is compiled for minutes; any of test_every_method.OTHERS may be added
FROZEN = ("pcb", "reidcaps_plus")  # a single network, and classifiers in each of several


def embeddings(step: Step, images: Any) -> np.ndarray:
    """Returns what is compared, [parts, images, dim]."""
    embed = jax.jit(lambda v, x: step.module.apply(v, {"body": x}, train=False)[0]["body"]["embeddings"])
    return np.asarray(embed(step.state.variables, images), np.float64)


@CI_ONLY
@pytest.mark.parametrize("variant", STEPS)
def test_bfloat16_gives_a_finite_loss_and_nearly_the_embeddings_of_float32(variant: str) -> None:
    low, exact = (Step(variant, {"model.dtype": dtype}) for dtype in ("bfloat16", "float32"))
    inputs = low.inputs(0.5)
    found, expected = (embeddings(step, inputs["body"][:EMBEDDED]) for step in (low, exact))
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    assert ((found * expected).sum(-1) / norms).min() > 0.99
    state, terms, gradients = low.take(low.state, inputs)
    assert np.isfinite([float(value) for value in terms.values()]).all()
    for tree in (gradients, state.params, state.batch_stats):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(jnp.float32)}
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@CI_ONLY
@pytest.mark.parametrize("variant", STEPS)
def test_eight_devices_that_rematerialise_take_the_step_of_one(variant: str) -> None:
    code, out, err = runs.finish(runs.start([str(SCRIPT), variant], devices=8))
    assert code == 0, err
    measured = json.loads(out.splitlines()[-1])[variant]
    for name, value in measured["one"].items():
        np.testing.assert_allclose(measured["eight"][name], value, rtol=1e-8, err_msg=name)
    assert measured["difference"] < 1e-6, measured["worst"]


@pytest.mark.parametrize("variant", FROZEN)
def test_a_run_that_goes_on_in_the_middle_of_frozen_epochs_opens_all_layers_when_they_end(
    variant: str, tmp_path: Path
) -> None:
    config = synthetic.get_config(f"{variant},debug")
    config.train.freeze_epochs, frozen = 1, 2  # epochs, steps
    (phase,) = methods.phases(config)
    counts = Counts(CLASSES, CLASSES)
    variables = initialisers.init_variables(phase.build(config, counts), 0, image_sizes(config))
    variables = with_own_parameters(variables, phase.recipe.losses, counts, 0)
    optimizer, mesh = optimisers.of_recipe(phase.recipe, 1e-3, config.train, frozen), sharding.make_mesh(config)
    template = state_.expected_state(variables, optimizer, mesh)

    @jax.jit
    def step(state: train.TrainState) -> train.TrainState:
        gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), state.params)
        changes, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, changes)
        return train.TrainState(state.step + 1, params, state.batch_stats, opt_state)

    begun = step(state_.initial_state(variables, optimizer, mesh))
    with CheckpointStore(tmp_path, best_metric=None, asynchronous=False) as store:
        store.save(1, state_.as_tree(begun), data={}, wait=True)
        restored = store.restore(state_.as_tree(template))
    assert restored is not None
    resumed = train.TrainState(**restored.state)
    for number in (2, 3):
        begun, resumed = step(begun), step(resumed)
        for one, other in zip(jax.tree.leaves(begun), jax.tree.leaves(resumed), strict=True):
            np.testing.assert_array_equal(one, other)
        same = jax.tree.map(lambda leaf, initial: bool((leaf == initial).all()), resumed.params, variables["params"])
        same.pop("loss", None)  # centres start at 0 and have no gradient
        for path, unchanged in jax.tree_util.tree_leaves_with_path(same):
            open_ = number > frozen or sharding.is_classifier(path)
            never = jax.tree_util.keystr(path[-2:]).startswith("['neck") and path[-1].key == "bias"
            assert unchanged == (never or not open_), jax.tree_util.keystr(path)
