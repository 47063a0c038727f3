"""Modules made of flax's own layers are initialised and trained by the normal training step, dropout included."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from configs import synthetic
from deskpro_jax.methods import deskpro
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.contract import Counts
from deskpro_jax.models.osnet import Backbone
from deskpro_jax.models.streams import Streams
from deskpro_jax.runtime import sharding
from deskpro_jax.train import optimisers
from deskpro_jax.train import step as train

CLASSES, ROWS, SIZE = 3, 6, 32


class Convolutions(nn.Module):
    """Convolutions with flax's BatchNorm and Dropout, one copy of the last for each group."""

    widths: tuple[int, ...]
    groups: tuple[int, ...] = ()
    strides: int = 2

    @nn.compact
    def __call__(self, x: Array, *, train: bool, valid: Array | None = None) -> Array:
        for width in self.widths:
            x = nn.Conv(width, (3, 3), strides=self.strides)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return jnp.stack([nn.Conv(x.shape[-1], (1, 1), name=f"group{i}")(x) for i in range(3)]) if self.groups else x


BACKBONE = Backbone(
    (8, 8, 8, 16),
    trunk=lambda spec, streams, dtype, name: Convolutions(spec.channels[2:3], name=name),
    tail=lambda spec, groups, streams, dtype, name: Convolutions(spec.channels[3:], groups, name=name),
    block=lambda features, groups, streams, dtype, name: Convolutions((features,), strides=1, name=name),
)


class Whole(nn.Module):
    """A method's whole module without running statistics; called as DeSKPro is."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        x = nn.relu(nn.Conv(8, (3, 3), strides=4)(inputs["body"])).mean((1, 2))
        features = nn.Dense(7 * 8)(nn.Dropout(self.rate, deterministic=not train)(x))
        features = features.reshape(-1, 7, 8).swapaxes(0, 1)
        outputs = {"logits": nn.Dense(CLASSES)(features), "features": features, "embeddings": features}
        return {"body": outputs}, {"body": {}}


class Run:
    """A module, its initial variables, and its compiled training step."""

    def __init__(self, module: Any, learning_rate: float = 1e-3) -> None:
        config = synthetic.get_config("csa,debug")
        config.augment.flip = config.augment.erase = 0.0  # only dropout tells two steps on one batch apart
        config.train.remat = "blocks"
        if isinstance(module, Streams):
            config.model.face, config.model.attention = "none", module.body_stream.attention
            recipe = deskpro.recipe(config)
        else:
            config.loss.attention_weight = 0.0
            recipe = deskpro.recipe(config)
        self.variables = initialisers.init_variables(module, 0, {"body": (SIZE, SIZE)})
        self.mesh, self.optimizer = sharding.make_mesh(config), optimisers.adam(learning_rate, 0.0)
        step = train.make_train_step(module, self.optimizer, config, recipe, mesh=self.mesh)
        self.step = train.jit_step(step, self.mesh, self.state(), None)

    def state(self) -> train.TrainState:
        return train.create_state(jax.tree.map(jnp.asarray, self.variables), self.optimizer)

    def two_steps(self, seed: int = 0) -> tuple[train.TrainState, list[float]]:
        """Returns the state after two steps on one batch, and their losses."""
        rng = np.random.default_rng(0)
        batch = {
            "body": rng.integers(0, 256, (ROWS, SIZE, SIZE, 3), np.uint8),
            "cloth_mask": np.ones((ROWS, SIZE, SIZE), np.uint8),
            "identity": np.arange(ROWS, dtype=np.int32) % CLASSES,
            "valid": np.ones(ROWS, bool),
            "has_face": np.zeros(ROWS, bool),
            "has_mask": np.ones(ROWS, bool),
        }
        state, losses = self.state(), []
        for _ in range(2):
            state, terms = self.step(state, None, sharding.put_batch(self.mesh, batch), jax.random.key(seed))
            losses.append(float(terms["total"]))
        return state, losses


def moved(before: Any, after: Any) -> Any:
    return jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), before, after)


def test_a_backbone_of_flax_layers_is_trained() -> None:
    config = synthetic.get_config("csa,debug")
    config.model.backbone = "test_stock_layers:BACKBONE"
    run = Run(deskpro.build(config, Counts(CLASSES)))
    state, losses = run.two_steps()
    assert np.isfinite(losses).all()
    for collection, after in (("params", state.params), ("batch_stats", state.batch_stats)):
        for part in ("trunk", "branches", "drop_block"):
            changed = moved(run.variables[collection]["body_stream"][part], after["body_stream"][part])
            assert any(jax.tree.leaves(changed)), (collection, part)


def test_a_module_without_running_statistics_is_trained() -> None:
    run = Run(Whole())
    state, losses = run.two_steps()
    assert run.variables["batch_stats"] == state.batch_stats == {}
    assert np.isfinite(losses).all()
    assert all(jax.tree.leaves(moved(run.variables["params"], state.params)))
    assert run.two_steps()[1] == losses
    assert run.two_steps(seed=1)[1][0] != losses[0]  # the key decides what is dropped


def test_dropout_differs_from_step_to_step() -> None:
    for rate, same in ((0.5, False), (0.0, True)):
        first, second = Run(Whole(rate), learning_rate=0.0).two_steps()[1]
        assert (first == second) == same


class FaceWithDropout(nn.Module):
    """A teacher whose logits show what dropout kept."""

    @nn.compact
    def __call__(self, inputs: Any, *, train: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        kept = nn.Dropout(0.5, deterministic=not train)(jnp.ones((7, len(inputs["restored_face"]), 20)))
        return {"face": {"logits": kept}}, {"face": {}}


def test_a_teacher_drops_only_in_batch_statistics_mode() -> None:
    inputs = {"restored_face": jnp.zeros((2, 4, 4, 3)), "valid": jnp.ones(2, bool), "has_face": jnp.ones(2, bool)}

    def logits(statistics: str, seed: int) -> np.ndarray:
        key = jax.random.key(seed)
        outputs = train.teacher_outputs(FaceWithDropout(), {}, inputs, statistics, dropout=key)
        return np.asarray(outputs["face"]["logits"])

    assert (logits("running", 0) == 1).all()
    assert set(np.unique(logits("batch", 0))) == {0.0, 2.0}
    assert (logits("batch", 0) != logits("batch", 1)).any()


def test_own_and_flax_layers_in_one_module_are_each_initialised_their_way() -> None:
    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x: Array) -> Array:
            x = layers.Pointwise(4, name="own")(x)
            scale = self.param("scale", nn.with_partitioning(nn.initializers.constant(3.0), (None,)), (4,))
            count = self.variable("counters", "count", lambda: jnp.full((2,), 7, jnp.int32))
            return nn.Dense(64, name="flax")(x * scale) + count.value.sum()

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x: Array) -> Array:
            return layers.Pointwise(4, name="own")(x)

    x = jnp.zeros((1, 2, 2, 50))
    one, again, other = (initialisers.draw(lambda key: Mixed().init(key, x), seed) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    np.testing.assert_array_equal(
        one["params"]["own"]["kernel"], initialisers.draw(lambda key: Own().init(key, x), 1)["params"]["own"]["kernel"]
    )
    own_init = jax.jit(Mixed().init)(jax.random.key(1, impl="rbg"), x)["params"]["flax"]
    jax.tree.map(np.testing.assert_array_equal, one["params"]["flax"], own_init)
    assert (one["params"]["flax"]["kernel"] != other["params"]["flax"]["kernel"]).all()
    assert (one["params"]["scale"] == 3.0).all()
    assert (one["counters"]["count"] == 7).all()
    assert one["batch_stats"] == {}
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(one))
