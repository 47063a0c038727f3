"""Runs of whole networks: embeddings in float32, one training step in float64, compared with a case's arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import golden_rule
from configs import base
from deskpro_jax.models.contract import Counts, PublishedNames
from deskpro_jax.train import optimisers
from deskpro_jax.train import step as train
from golden_cases import Golden, cast, published_tensors, tensors, variables, worst

SMALL_GRADIENT = 1e-7  # near Adam's eps the first step is not lr * sign(g), but what rounding makes of it
Read = Callable[[Mapping[str, np.ndarray], Any], Any]  # variables from a state dict and a network


def configured(method: str, fields: Mapping[str, Any]) -> Any:
    """Returns the default configuration with a method and fields by dotted name."""
    config = base.get_config()
    config.update_from_flattened_dict(
        {"model.name": method, "model.body": True, "model.face": "none", "model.attention": "none", **fields}
    )
    return config


def network_of(method: ModuleType, config: Any, meta: Mapping[str, Any], dtype: Any) -> Any:
    """Returns the network of a case."""
    config.model.dtype = jnp.dtype(dtype).name
    return method.network(config, Counts(meta["num_classes"]))


def reader(names: PublishedNames, size: tuple[int, int] = (32, 32)) -> Read:
    """Returns a function that puts a state dict into a network by published names."""
    return lambda state_dict, network: variables(names, state_dict, network, jnp.zeros((1, *size, 3)))


def manifest_of(golden: Golden, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the names and shapes of a case's reference network, the classifiers for its number of classes."""
    return dict(golden.manifest[meta["manifest"]])


def embeddings(network: Any, read: Read, golden: Golden, meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns what a network makes of a case's images, under the names of the stored arrays, [batch, part, dim].

    Args:
        network: of the case.
        read: see `reader`.
        golden: the file.
        meta: of the case.
    """
    state = tensors(manifest_of(golden, meta), meta["weights_seed"])
    held = cast(read(state, network), jnp.float32)
    images = jnp.asarray(golden_rule.images(meta["input_seed"], meta["input"]), jnp.float32)
    apply = jax.jit(lambda held, x: network.apply(held, x, train=False)[0])
    outputs, mirrored = apply(held, images), apply(held, images[:, :, ::-1])
    one, other = (np.asarray(out["embeddings"], np.float64).transpose(1, 0, 2) for out in (outputs, mirrored))
    joined = (one + other) / np.linalg.norm(one + other, axis=-1, keepdims=True)
    before = np.asarray(outputs["features"]).transpose(1, 0, 2)
    flat = joined.reshape(len(joined), -1)
    return {
        "embedding": one,
        "embedding_mirrored": other,
        "retrieval": joined,
        "distance": 1 - flat @ flat.T,
        "before_neck": before,
    }


def compare_embeddings(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Compares by name, 1e-4 of the largest value."""
    for name, array in expected.items():
        value = found[name].reshape(array.shape)
        if name == "distance":  # a difference of numbers near the number of parts
            np.testing.assert_allclose(value, array, atol=1e-5, err_msg=name)
        else:
            assert worst(value, array) < 1e-4, name


def step(
    method: ModuleType,
    config: Any,
    read: Read,
    golden: Golden,
    meta: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    written: Callable[[Any], dict[str, np.ndarray]],
    state: Mapping[str, np.ndarray] | None = None,
    epoch: int = 0,
    own: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Takes one training step in float64.

    Args:
        method: module of the method; its recipe's losses are used.
        config: of the case.
        read: see `reader`.
        golden: the file.
        meta: of the case.
        optimizer: of the case.
        written: from a tree like the network's variables to tensors by published name.
        state: the reference's tensors, where its manifest is not by variant.
        epoch: epochs done.
        own: parameters that terms have for themselves, by term.
        fields: of the batch, beside photos and identities.

    Returns:
        The body stream's outputs before the step, and by name: `terms`, `intermediates`, and tensors `gradients`,
        `before` and `after`; `own`, the same of the terms' own parameters.
    """
    network = network_of(method, config, meta, jnp.float64)
    state = tensors(manifest_of(golden, meta), meta["weights_seed"]) if state is None else state
    held = {name: {"body_stream": tree} for name, tree in cast(read(state, network), jnp.float64).items()}
    if own:
        held["params"][optimisers.LOSS] = cast(own, jnp.float64)
    module = method.build(config, Counts(meta["num_classes"]))
    labels = jnp.asarray(meta["labels"], jnp.int32)
    inputs = {
        "body": jnp.asarray(golden_rule.images(meta["input_seed"], meta["input"]), jnp.float64),
        "identity": labels,
        "valid": jnp.ones(labels.shape, bool),
        **(fields or {}),
    }
    losses = method.recipe(config).losses

    @jax.jit
    def run(state: Any, inputs: Any) -> Any:
        (outputs, middle), _ = module.apply(state.variables, inputs, train=True, mutable=["batch_stats"])
        return *train.update(state, inputs, module, optimizer, losses, epoch=epoch), outputs, middle

    before = train.create_state(held, optimizer)
    after, terms, gradients, outputs, middle = run(before, inputs)
    of_stream = lambda tree: {name: part["body_stream"] for name, part in tree.items()}  # noqa: E731
    return jax.device_get(outputs["body"]), {
        "terms": {name: float(value) for name, value in terms.items()},
        "intermediates": jax.device_get(middle["body"]),
        "gradients": written(of_stream({"params": gradients})),
        "before": written(of_stream(before.variables)),
        "after": written(of_stream(after.variables)),
        "own": jax.device_get(
            {
                name: tree.get(optimisers.LOSS, {})
                for name, tree in (("gradients", gradients), ("before", before.params), ("after", after.params))
            }
        ),
    }


def compare_step(
    values: Mapping[str, Any], expected: Mapping[str, np.ndarray], ignores: Callable[[str], bool], decay: float
) -> None:
    """Compares gradient norms and values after the step with those of a case.

    Args:
        values: from `step`.
        expected: the arrays of the case.
        ignores: whether the network does not have a tensor of this name.
        decay: L2 weight decay of the case.
    """
    gradients, before, after = values["gradients"], values["before"], values["after"]
    norms = dict(zip(expected["grad_names"], expected["grad_norms"], strict=True))
    without = {name for name in expected.get("no_gradient", ()) if not ignores(name)}
    assert set(gradients) == set(norms) | without
    for name in without:
        np.testing.assert_array_equal(gradients[name], 0, err_msg=name)
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    for name, norm in norms.items():
        np.testing.assert_allclose(np.linalg.norm(gradients[name]), norm, rtol=1e-5, atol=1e-9, err_msg=name)
    for key in (key for key in expected if key.startswith("after/")):
        name = key.removeprefix("after/")
        if ignores(name):
            continue
        wanted = expected[key].reshape(-1)
        own = after[name].reshape(-1)[: wanted.size]
        clear = np.ones(wanted.size, bool)
        if name in norms:
            flat = lambda tree, size=wanted.size, name=name: tree[name].reshape(-1)[:size]  # noqa: E731
            clear = np.abs(flat(gradients) + decay * flat(before)) > SMALL_GRADIENT
            assert clear.mean() > 0.5, name
            moved, expected_move = own - flat(before), wanted - flat(before)
            np.testing.assert_allclose(
                moved[clear], expected_move[clear], rtol=1e-3, atol=1e-3 * np.abs(expected_move).max(), err_msg=name
            )
        np.testing.assert_allclose(own[clear], wanted[clear], rtol=1e-5, atol=1e-9, err_msg=name)


def compare_each(outputs: Any, expected: Mapping[str, np.ndarray], triplet: Iterable[int]) -> None:
    """Compares logits of every part and features of those with a metric loss, 1e-5 of the largest value."""
    assert worst(outputs["logits"], expected["logits"]) < 1e-5
    assert worst(outputs["features"][np.asarray(list(triplet))], expected["features"]) < 1e-5


def writer(names: PublishedNames) -> Callable[[Any], dict[str, np.ndarray]]:
    """Returns a function from a tree of variables to tensors by published name."""
    return lambda tree: published_tensors(names, tree)
