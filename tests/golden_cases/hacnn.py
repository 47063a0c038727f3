"""HACNN against torchreid's: embeddings, a training step, harmonious attention and the sampling of regions alone."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import golden_rule
from configs import base
from deskpro_jax.methods import hacnn
from deskpro_jax.models import harmonious, sampling
from deskpro_jax.weights import published
from golden_cases import Golden, cast, tensors, torchreid, variables, worst

HEAVY = ("train",)
_NAMES = hacnn.NAMES[0]


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    if "transform" in case:
        with jax.enable_x64(True):
            _sampling(golden, case)
    elif "harmonious" in case:
        with jax.enable_x64(True):
            _harmonious(golden, case)
    elif case.startswith("eval"):
        _evaluate(golden, case)
    else:
        with jax.enable_x64(True):
            _train(golden, case)


def _network(fields: dict[str, Any], dtype: Any) -> hacnn.HACNN:
    channels = tuple(fields["nchannels"])
    return hacnn.HACNN(fields["num_classes"], channels, fields["feat_dim"], fields["align_corners"], dtype)


def _evaluate(golden: Golden, case: str) -> None:
    fields, data = golden.meta["cases"][case], golden.case(case)
    network = _network(fields, jnp.float32)
    images = jnp.asarray(golden_rule.images(fields["input_seed"], fields["input"]), jnp.float32)
    state_dict = tensors(golden.manifest[fields["manifest"]], fields["weights_seed"])
    own = variables(_NAMES, state_dict, network, images)
    outputs, middle = jax.jit(functools.partial(network.apply, train=False))(cast(own, jnp.float32), images)
    parts = np.asarray(outputs["embeddings"], np.float64)
    assert worst(parts[0], data["global"]) < 1e-4
    assert worst(parts[1], data["local"]) < 1e-4
    unit = parts / np.linalg.norm(parts, axis=-1, keepdims=True)
    assert worst(np.concatenate([*unit], -1), data["embedding"]) < 1e-4
    assert worst(middle["regions"].transpose(1, 0, 2, 3), data["theta"]) < 1e-5


def _train(golden: Golden, case: str) -> None:
    fields, data = golden.meta["cases"][case], golden.case(case)
    network = _network(fields, jnp.float64)
    images = jnp.zeros(golden_rule.images(0, fields["input"]).shape, jnp.float64)
    entries = published.entries(_NAMES, torchreid.template(network, images))[0]
    config = base.get_config()
    config.loss.update(label_smoothing=fields["label_smoothing"], triplet_weight=0.0, outputs="mean")
    terms = hacnn.terms(config, hacnn.stream(config))
    outputs = torchreid.check_step(golden, case, network, entries, terms)
    for part, name in enumerate(hacnn.PARTS):
        assert worst(outputs["features"][part], data[f"features_{name}"]) < 1e-5


def _harmonious(golden: Golden, case: str) -> None:
    fields, data = golden.meta["cases"][case], golden.case(case)
    x = jnp.asarray(golden_rule.images(fields["input_seed"], fields["input"]))
    unit = harmonious.HarmAttn(jnp.float64)
    own = variables(_NAMES, tensors(golden.manifest[fields["manifest"]], fields["weights_seed"]), unit, x)
    channel = {name: tree["soft_attn"]["channel_attn"] for name, tree in own.items()}
    for mode in ("eval", "train"):
        run = {"train": mode == "train", "mutable": ["batch_stats"]}
        (soft, shifts), _ = unit.apply(own, x, **run)
        weights, _ = harmonious.ChannelAttn(dtype=jnp.float64).apply(channel, x, **run)
        maps = soft.transpose(0, 3, 1, 2)
        exact = {
            "soft": maps[:, :: fields["channel_stride"]],
            "soft_sum": maps.sum((2, 3)),
            "theta": shifts,
            "channel": weights[:, 0, 0],
        }
        for name, value in exact.items():
            stored = data[f"{mode}_{name}"]
            np.testing.assert_allclose(value, stored, rtol=1e-6, atol=1e-7 * np.abs(stored).max(), err_msg=name)


def _sampling(golden: Golden, case: str) -> None:
    fields, data = golden.meta["cases"][case], golden.case(case)
    seed, (_, _, height, width) = fields["seed"], fields["input"]
    x = jnp.asarray(golden_rule.images(seed, fields["input"]))
    shifts = jnp.tanh(jnp.asarray(np.random.default_rng(seed + 1).standard_normal((x.shape[0], 2))))
    (scale_x, skew_x), (skew_y, scale_y) = fields["scale"]
    assert skew_x == skew_y == 0, "regions of HACNN are not rotated"
    for name, align_corners in (("default", False), ("align_corners", True)):

        def region(x: Any, shifts: Any, size: Any, align_corners: bool = align_corners) -> Any:
            cut = sampling.sample_regions(x, shifts[:, None], (scale_x, scale_y), size, align_corners=align_corners)
            return cut[:, 0].transpose(0, 3, 1, 2)

        size = tuple(fields["resize"])
        gradient = np.random.default_rng(seed + 2).standard_normal((*x.shape[:1], x.shape[3], *size))
        exact = {"sampled": region(x, shifts, (height, width)), "resized": region(x, shifts, size)}
        to_x, to_shifts = jax.grad(lambda x, t: (region(x, t, size) * gradient).sum(), (0, 1))(x, shifts)  # noqa: B023
        exact |= {"input_gradient": to_x.transpose(0, 3, 1, 2), "theta_gradient": to_shifts}
        for key, value in exact.items():
            stored = data[f"{name}_{key}"]
            np.testing.assert_allclose(value, stored, rtol=1e-6, atol=1e-7 * np.abs(stored).max(), err_msg=key)
