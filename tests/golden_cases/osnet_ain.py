"""OSNet-AIN against torchreid's: embeddings of all widths, a training step, the block alone."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import golden_rule
from configs import base
from deskpro_jax.methods import find_method, names_of
from deskpro_jax.models.contract import Counts, LossTerm
from deskpro_jax.models.osnet import BACKBONES, OSBlock
from deskpro_jax.weights import osnet as names
from deskpro_jax.weights import published
from deskpro_jax.weights.table import Entry
from golden_cases import Golden, torchreid, worst

HEAVY = ("train", "fixbase")


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    kinds = {"block": _block, "eval": _evaluate, "train": _train, "fixbase": _train}
    next(check for kind, check in kinds.items() if case.startswith(kind))(golden, case)


def method(
    golden: Golden, network: str, classes: int, dtype: str, **loss: float
) -> tuple[nn.Module, list[Entry], list[LossTerm]]:
    """Returns a network by torchreid's name (osnet_ain_x0_25), its name table, and its losses."""
    kind, _, width = network.partition("_x")
    config = base.get_config()
    config.model.update(name=kind, backbone=f"x{width}", dtype=dtype)
    config.loss.update(loss)
    module = find_method(kind)
    spec = module.stream(config)
    built = module.network(config, Counts(classes))
    (table,) = names_of(kind)
    entries = published.entries(table, torchreid.template(built, jnp.zeros((1, 32, 32, 3), dtype)))[0]
    return built, entries, module.terms(config, spec)


def _evaluate(golden: Golden, case: str) -> None:
    fields, data = golden.meta["cases"][case], golden.case(case)
    images = jnp.asarray(golden_rule.images(fields["input_seed"], fields["input"]), jnp.float32)
    networks = fields["networks"]
    if not {"DESKPRO_TEST_OPTIMISED", "DESKPRO_GOLDEN"} & set(os.environ):
        networks = networks[-1:]  # the narrowest: the others are CI's
    for name in networks:
        network, entries, _ = method(golden, name, fields["num_classes"], "float32")
        variables = torchreid.load(entries, golden.manifest[name], fields["weights_seed"], network, images)
        outputs, middle = jax.jit(functools.partial(network.apply, train=False))(variables, images)
        assert worst(outputs["embeddings"][0], data[f"{name}/embedding"]) < 1e-4, name
        assert worst(middle["feature_map"].mean((1, 2)), data[f"{name}/featuremap_mean"]) < 1e-4, name
        embeddings = np.asarray(outputs["embeddings"][0])
        assert worst(embeddings / np.linalg.norm(embeddings, axis=1)[:, None], data[f"{name}/normalised"]) < 1e-4


def _train(golden: Golden, case: str) -> None:
    fields, data = golden.meta["cases"][case], golden.case(case)
    with jax.enable_x64(True):
        loss = {"label_smoothing": fields["label_smoothing"], "triplet_weight": 0.0}
        network, entries, terms = method(golden, fields["network"], fields["num_classes"], "float64", **loss)
        outputs = torchreid.check_step(golden, case, network, entries, terms)
    if "features" in data:
        assert worst(outputs["features"][0], data["features"]) < 1e-5


class _Alone(nn.Module):
    """The first block of OSNet-AIN, with instance normalisation inside its residual."""

    features: int

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        return OSBlock(self.features, norm="ain", dtype=x.dtype, name="block2_0")(x, train=train)


def _block(golden: Golden, case: str) -> None:
    fields, data = golden.meta["cases"][case], golden.case(case)
    with jax.enable_x64(True):
        x = jnp.asarray(golden_rule.images(fields["input_seed"], fields["input"]))
        alone, downsample = _Alone(fields["out_channels"]), x.shape[-1] != fields["out_channels"]
        spec = BACKBONES["ain_x1_0"]
        entries = names.os_block("", ("block2_0",), streams="abcd", downsample=downsample, spec=spec)
        entries = [replace(entry, name=entry.name.removeprefix(".")) for entry in entries]
        shapes = golden.manifest[fields["manifest"]]
        variables = torchreid.load(entries, shapes, fields["weights_seed"], alone, x)
        for mode in ("eval", "train"):
            y, _ = alone.apply(variables, x, train=mode == "train", mutable=["batch_stats"])
            assert worst(y.transpose(0, 3, 1, 2), data[mode]) < 1e-6
