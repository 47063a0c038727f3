"""Every method of the package: its variant, its debug size, and one training step on a batch with padding."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import celeb, synthetic
from deskpro_jax import experiment, methods
from deskpro_jax.config import fields
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import Counts, TrainingImages, image_sizes
from deskpro_jax.models.streams import with_choices
from deskpro_jax.train import optimisers, schedules
from deskpro_jax.train import step as train
from deskpro_jax.train.loss_terms import with_own_parameters

OTHERS = tuple(name for name in methods.METHODS if name in methods.variants())
IDENTITIES, OUTFITS = (0, 0, 3, 3, 0, 1), 5
ROWS, CLASSES = len(IDENTITIES), 5
# To compile.
SLOW = ("aim", "cssc", "fire", "hacnn", "lmbn", "lmbn_r", "mgn", "osnet", "osnet_ain", "osnet_ibn", "reidcaps_plus")
CI_ONLY = pytest.mark.skipif(
    os.environ.get("DESKPRO_TEST_OPTIMISED") != "1", reason=".ci/run takes it, with DESKPRO_TEST_OPTIMISED=1"
)


def test_a_variant_called_like_a_method_trains_it() -> None:
    assert all(methods.variants()[name]["model.name"] == name for name in OTHERS)
    assert {"osnet", "osnet_ain", "osnet_ibn", "hacnn"} <= set(OTHERS)


@pytest.mark.parametrize("variant", sorted(methods.variants()))
def test_a_variant_is_the_same_recipe_on_every_dataset(variant: str) -> None:
    configs = [fields.flatten(celeb.get_config(variant)), fields.flatten(synthetic.get_config(f"full,{variant}"))]
    of_datasets = ("data.name", "eval.baselines", "eval.every", "model.backbone", "model.feature_dim")
    of_deskpro = ("data.face_size", "teacher.", "loss.attention", "loss.mask", "loss.temperature", "loss.alpha")
    free = (*of_datasets, *of_deskpro)
    differ = [name for name, value in configs[0].items() if value != configs[1][name] and not name.startswith(free)]
    assert differ == [], "the variant leaves these to the configuration of the dataset"


@pytest.mark.parametrize("variant", sorted(methods.variants()))
def test_on_the_small_synthetic_people_recipes_fit(variant: str) -> None:
    config, demo, published = (synthetic.get_config(name) for name in (variant, "random,deskpro", f"full,{variant}"))
    experiment.validate(config)
    assert config.train.epochs == demo.train.epochs  # as many images seen
    assert config.data.identities * config.data.images_per_identity == 32
    assert all(size >= least for size, least in zip(config.data.body_size, demo.data.body_size, strict=True))
    assert all(epoch > 0 for epoch in config.train.milestones)
    assert len(config.train.milestones) == len(published.train.milestones)
    kept = ("augment.", "data.sampler", "loss.label_smoothing", "train.optimizer", "train.schedule", "eval.flip")
    before, after = fields.flatten(published), fields.flatten(config)
    assert {name for name in before if name.startswith(kept) and before[name] != after[name]} <= {
        "train.schedule_epochs"
    }
    assert after["model.backbone"] not in ("resnet50", "densenet121", "x1_0", "hacnn")


class Step:
    """A debug network of a method, and its training step, compiled; `changes` are to fields of the configuration."""

    def __init__(self, variant: str, changes: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.config = synthetic.get_config(f"{variant},debug")
        self.config.update_from_flattened_dict({"train.freeze_epochs": 0, "loss.clothes_epoch": 0, **changes})
        experiment.validate(self.config)
        (phase,) = methods.phases(self.config)
        counts, sizes = Counts(CLASSES, OUTFITS), image_sizes(self.config)
        module = with_choices(phase.build(self.config, counts), remat=self.config.train.remat)
        variables = initialisers.init_variables(module, 0, sizes)
        variables = with_own_parameters(variables, phase.recipe.losses, counts, 0)
        self.rates = schedules.epoch_rates(self.config.train, ROWS - 1, 2, 0, phase.recipe.schedule)
        optimizer = optimisers.of_recipe(phase.recipe, float(self.rates[0]), self.config.train)
        self.fields: dict[str, Any] = {}
        if phase.recipe.between_epochs is not None:  # as once everything has begun
            (dim,) = (spec.width for spec in phase.streams)
            images = np.random.default_rng(2).standard_normal((ROWS, dim)).astype(np.float32)
            start = phase.recipe.between_epochs(100, TrainingImages(np.asarray(IDENTITIES), lambda: images))
            self.fields = {name: jnp.asarray(values) for name, values in start.fields.items()}
            variables["params"][optimisers.LOSS].update(start.parameters)
        if self.config.model.dtype == "float64":
            variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        self.state = jax.jit(lambda v: train.create_state(v, optimizer))(variables)
        self.size = sizes["body"]
        self.module = module
        losses, key = phase.recipe.losses, jax.random.key(0)
        augment = phase.recipe.augment or (lambda key, inputs: inputs)
        self.update = lambda state, inputs: train.update(
            state, augment(key, inputs), module, optimizer, losses, epoch=100, dropout=key
        )
        self.take = jax.jit(self.update)

    def inputs(self, padding: float) -> dict[str, Any]:
        """Returns a batch whose last row is padding, with this value in it."""
        images = np.random.default_rng(0).standard_normal((ROWS, *self.size, 3)).astype(np.float32)
        images[-1] = padding
        valid = np.arange(ROWS) < ROWS - 1
        garments = np.random.default_rng(1).integers(0, 3, (ROWS, *self.size)).astype(np.uint8)
        garments[-1] = 0
        return {
            "body": jnp.asarray(images),
            "identity": jnp.asarray(IDENTITIES, jnp.int32),
            "valid": jnp.asarray(valid),
            "has_face": jnp.asarray(valid),
            "has_mask": jnp.asarray(valid),
            "garments": jnp.asarray(garments),
            "clothes": jnp.asarray([0, 1, 3, 4, -1, 2], jnp.int32),
            "clothes_range": jnp.asarray([[0, 2], [0, 2], [3, 5], [3, 5], [0, 2], [2, 3]], jnp.int32),
            **self.fields,
        }


@pytest.mark.parametrize("variant", [pytest.param(name, marks=CI_ONLY if name in SLOW else ()) for name in OTHERS])
def test_a_step_learns_everywhere_and_padding_takes_no_part(variant: str) -> None:
    step = Step(variant)
    state, terms, gradients = step.take(step.state, step.inputs(0.5))
    assert np.isfinite(float(terms["total"]))
    assert step.rates[0] > 0
    names = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)}
    idle = [name for name, leaf in names.items() if not np.any(leaf) and "['neck" not in name]
    assert len(idle) < 0.05 * len(names), idle
    assert all(np.isfinite(leaf).all() for leaf in names.values())
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, step.state.params)
    assert np.mean(jax.tree.leaves(moved)) > 0.5
    other, other_terms, _ = step.take(step.state, step.inputs(-3.0))
    assert float(other_terms["total"]) == pytest.approx(float(terms["total"]), rel=1e-6)
    for one, two in zip(jax.tree.leaves(state.batch_stats), jax.tree.leaves(other.batch_stats), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
