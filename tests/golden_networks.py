"""The networks of the golden files: modules and the variables that `golden_rule` gives them, for test_golden.py."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta as flax_meta

from deskpro_jax.methods.deskpro import module as deskpro_module
from deskpro_jax.models.lmbn import LightMBN
from deskpro_jax.models.osnet import OSNet, backbone
from deskpro_jax.models.streams import Streams
from deskpro_jax.weights import deskpro, lmbn, osnet, table
from golden_rule import state_dict

MANIFESTS = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("DESKPRO_GOLDEN") or MANIFESTS)


def manifest(name: str) -> dict[str, Any]:
    """Returns the names and shapes of a reference network's tensors."""
    path = FOLDER / name
    return json.loads((path if path.exists() else MANIFESTS / name).read_text())


def cast(tree: Any, dtype: Any) -> Any:
    """Returns a tree with every array in `dtype`."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def osnet_network(meta: dict[str, Any], name: str) -> tuple[OSNet, Any]:
    """Returns the OSNet called `name` in its manifest, as osnet_x0_25, and its variables in float32."""
    model = OSNet(name.removeprefix("osnet_"), meta["num_classes"])
    template = flax_meta.unbox(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    tensors = state_dict(manifest("osnet_manifest.json")[name], meta["weights_seed"], meta["num_classes"])
    variables = table.load(osnet.osnet(spec=backbone(name.removeprefix("osnet_"))), tensors, template)
    return model, cast(variables, jnp.float32)


def lightmbn_network(meta: dict[str, Any]) -> tuple[LightMBN, Any]:
    """Returns the published LightMBN and its variables in float32."""
    model = LightMBN(meta["num_classes"])
    init = functools.partial(model.init, train=False)
    template = flax_meta.unbox(jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    tensors = state_dict(manifest("lmbn_manifest.json"), meta["weights_seed"], meta["num_classes"])
    variables = table.load(lmbn.light_mbn(lmbn.PUBLISHED, streams="abcd"), tensors, template)
    return model, cast(variables, jnp.float32)


def deskpro_networks(meta: dict[str, Any], dtype: Any) -> tuple[Streams, Any, Streams, Any]:
    """Returns the two-stream model, its variables, and the same for the teacher."""
    tensors = state_dict(manifest("deskpro_manifest.json"), meta["weights_seed"], meta["num_classes"])
    shape = {"num_classes": meta["num_classes"], "os_streams": meta["streams"], "dtype": jnp.dtype(dtype)}
    student = deskpro_module(**shape, attention="released")
    teacher = deskpro_module(**shape, body=False, face_image="restored_face")
    small = jnp.zeros((1, 32, 32, 3), dtype)  # parameters do not depend on the size of the images
    pairs = []
    for model, entries in (
        (student, deskpro.two_streams(streams=meta["streams"], attention_form="released")),
        (teacher, deskpro.stream("teacher", streams=meta["streams"])),
    ):
        template = flax_meta.unbox(
            jax.eval_shape(model.init, jax.random.key(0), dict.fromkeys(("body", "face", "restored_face"), small))
        )
        pairs += [model, cast(table.load(entries, tensors, template), dtype)]
    return tuple(pairs)  # type: ignore[return-value]
