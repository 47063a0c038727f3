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
from golden_cases import Golden, cast, steps, tensors, worst


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
    chosen = fields["optimizer"]
    assert (chosen["adam_beta1"], chosen["adam_beta2"]) == (0.9, 0.999)
    frozen = "open_layers" in fields  # torchreid's "fixbase"
    optimizer = optimisers.optimizer(
        chosen["optim"], chosen["lr"], chosen["weight_decay"], freeze_steps=1 if frozen else 0
    )
    state = train.create_state({name: {"body_stream": tree} for name, tree in variables.items()}, optimizer)
    batch = len(fields["labels"])
    inputs = {"body": images, "identity": jnp.asarray(fields["labels"]), "valid": jnp.ones(batch, bool)}

    @jax.jit
    def step(state: Any, inputs: Any) -> Any:
        outputs = module.apply(state.variables, inputs, train=not frozen, mutable=["batch_stats"])[0][0]["body"]
        return *train.update(state, inputs, module, optimizer, terms, classifiers_only=frozen), outputs

    after, values, gradients, outputs = step(state, inputs)
    np.testing.assert_allclose(values["total"], data["total"], rtol=1e-5)
    assert worst(outputs["logits"].reshape(data["logits"].shape), data["logits"]) < 1e-5
    reached = {name: tree["body_stream"] for name, tree in after.variables.items()}
    params = [entry for entry in entries if entry.collection == "params"]
    found = {
        "gradients": table.dump(params, {"params": gradients["body_stream"]}),
        "before": table.dump(entries, variables),
        "after": table.dump(entries, reached),
    }
    steps.compare_step(found, data, lambda name: False, fields["optimizer"]["weight_decay"])
    return dict(outputs)
