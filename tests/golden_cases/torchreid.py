"""What torchreid's golden cases have in common: a network evaluated, and one training step in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta as flax_meta

import golden_rule
from deskpro_jax.models.contract import LossTerm
from deskpro_jax.models.streams import Streams
from deskpro_jax.train import optimisers
from deskpro_jax.train import step as train
from deskpro_jax.weights import table
from deskpro_jax.weights.table import Entry
from golden_cases import Golden, cast, tensors, worst

NOISE = 1e-12  # gradients below this vanish in exact arithmetic


def template(module: nn.Module, images: Any) -> Any:
    """Returns the shapes of a network's variables."""
    return flax_meta.unbox(jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images))


def load(entries: Sequence[Entry], shapes: Mapping[str, Any], seed: int, module: nn.Module, images: Any) -> Any:
    """Returns a network's variables as the rule fills them; every tensor of the manifest has its place."""
    state_dict = tensors(shapes, seed)
    assert {name for name in state_dict if not name.endswith(table.COUNTER)} == {entry.name for entry in entries}
    return cast(table.load(entries, state_dict, template(module, images)), images.dtype)


def check_step(
    golden: Golden, case: str, network: nn.Module, entries: Sequence[Entry], terms: Sequence[LossTerm]
) -> dict[str, Any]:
    """Compares one step of training, in float64, with the reference's.

    Args:
        golden: the file.
        case: of the training step.
        network: as the method builds it, computing in float64.
        entries: its name table.
        terms: the method's losses of a stream called "body".

    Returns:
        The outputs of the network in training mode, before the step.
    """
    fields, data = golden.meta["cases"][case], golden.case(case)
    images = jnp.asarray(golden_rule.images(fields["input_seed"], fields["input"]), jnp.float64)
    variables = load(entries, golden.manifest[fields["manifest"]], fields["weights_seed"], network, images)
    module = Streams(body_stream=network)
    optimizer = torchreid_optimizer(fields["optimizer"])
    state = train.create_state({name: {"body_stream": tree} for name, tree in variables.items()}, optimizer)
    batch = len(fields["labels"])
    inputs = {"body": images, "identity": jnp.asarray(fields["labels"]), "valid": jnp.ones(batch, bool)}

    @jax.jit
    def step(state: Any, inputs: Any) -> Any:
        outputs = module.apply(state.variables, inputs, train=True, mutable=["batch_stats"])[0][0]["body"]
        return *train.update(state, inputs, module, optimizer, terms), outputs

    after, values, gradients, outputs = step(state, inputs)
    np.testing.assert_allclose(values["total"], data["total"], rtol=1e-5)
    assert worst(outputs["logits"], data["logits"]) < 1e-5
    check_gradients(data, table.dump(_params(entries), {"params": gradients["body_stream"]}))
    reached = {name: tree["body_stream"] for name, tree in after.variables.items()}
    rate = fields["optimizer"]["lr"]
    check_values(data, table.dump(entries, variables), table.dump(entries, reached), rate, _params(entries))
    return dict(outputs)


def torchreid_optimizer(fields: Mapping[str, Any]) -> Any:
    """Returns the optimiser of a case."""
    assert (fields["adam_beta1"], fields["adam_beta2"]) == (0.9, 0.999)
    return optimisers.OPTIMIZERS[fields["optim"]](fields["lr"], fields["weight_decay"])


def check_gradients(data: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]) -> None:
    """Compares the norm of every parameter's gradient."""
    norms = dict(zip(data["grad_names"].tolist(), data["grad_norms"], strict=True))
    assert set(norms) | set(data["no_gradient"].tolist()) == set(gradients)
    for name, expected in norms.items():
        np.testing.assert_allclose(np.linalg.norm(gradients[name]), expected, rtol=1e-5, atol=NOISE, err_msg=name)


def check_values(
    data: Mapping[str, np.ndarray],
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    rate: float,
    params: Sequence[Entry],
) -> None:
    """Compares parameters and running statistics after the step.

    Adam's first step is nearly the rate times the sign of the gradient: where that is noise, so is the step.
    """
    trained = {entry.name for entry in params}
    for key in (key for key in data if key.startswith("after/")):
        name = key.removeprefix("after/")
        expected = data[key].astype(np.float64)
        values = after[name].reshape(-1)[: expected.size]
        if name in trained:
            old = before[name].reshape(-1)[: expected.size]
            # Stored in float32, and where the gradient is clear both moved by the rate.
            clear = np.abs(np.abs(values - old) - rate) < 0.01 * rate
            assert clear.mean() > 0.5 or (values == old).all(), name
            np.testing.assert_allclose(values[clear], expected[clear], rtol=1e-5, atol=1e-5 * rate, err_msg=name)
        else:
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-9, err_msg=name)


def _params(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.collection == "params"]
