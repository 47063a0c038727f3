"""Attention maps and regions of the body stream over photos, beside where clothing is (the paper's Fig. 3)."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array

from deskpro_jax import losses
from deskpro_jax.data.load import augment, dataset, pipeline
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.models.contract import Network
from deskpro_jax.workdir.networks import LoadedNetworks

_BATCH = 16
_MEASURED = 128  # photos with a mask that the means are taken over, at most
NO_BODY = "these networks have no body stream, and no other has attention maps"
NO_ATTENTION = (
    "this body network has no attention (CSA, model.attention, or one of the method's own), and cuts out no regions"
)


class Maps(NamedTuple):
    """What a network's attention makes of some photos.

    Attributes:
        at: [photos] their positions in the split; one that cannot be read is left out.
        attention: [photos, rows, columns] in (0, 1); no rows where the network only cuts out regions.
        refined: [photos, rows, columns] mean over the channels of the absolute refined features; likewise.
        boxes: [photos, regions, 4] top, left, bottom and right of the regions that the network cuts out, as fractions
            of height and width; no regions where it cuts none out.
        clothing: mean attention over clothing, each photo with a mask counting alike; nan without any.
        elsewhere: the same of all else.
        measured: photos with a mask that these means are of.
    """

    at: np.ndarray
    attention: np.ndarray
    refined: np.ndarray
    boxes: np.ndarray
    clothing: float
    elsewhere: float
    measured: int


def unavailable(trained: LoadedNetworks) -> str | None:
    """Returns why networks have neither attention maps nor regions, None where they have."""
    body = _body(trained)
    if body is None:
        return NO_BODY
    shown = {"attention", "boxes"} & _intermediates(body[0].module, trained.sizes["body"])
    return None if shown else NO_ATTENTION


def cuts_regions(trained: LoadedNetworks) -> bool:
    """Returns whether networks cut regions out of a photo."""
    body = _body(trained)
    return body is not None and "boxes" in _intermediates(body[0].module, trained.sizes["body"])


@functools.lru_cache(maxsize=4)
def _intermediates(module: Any, size: tuple[int, int]) -> frozenset[str]:
    """Returns the names of what the body stream shows of its inside; traces the network, and compiles nothing."""
    inputs = {"body": jnp.zeros((1, *size, 3))}
    run = lambda key: module.init_with_output(key, inputs, train=False)[0][1]  # noqa: E731
    return frozenset(jax.eval_shape(run, jax.random.key(0))["body"])


def choose(split: ReIDSplit, count: int) -> np.ndarray:
    """Chooses photos to look at, of as many people as possible, with a mask where there are any.

    Args:
        split: where from.
        count: how many, at most.

    Returns:
        Ascending positions [n]; the same for the same split.
    """
    able = np.flatnonzero(split.has_mask) if split.has_mask.any() else np.arange(len(split))
    order = able[np.argsort(split.identity[able], kind="stable")]
    count = min(count, len(order))
    return np.sort(order[(2 * np.arange(count) + 1) * len(order) // (2 * max(count, 1))])


def attention_maps(
    trained: LoadedNetworks, config: ml_collections.ConfigDict, split: ReIDSplit, shown: np.ndarray
) -> Maps:
    """Computes the maps of some photos, and means over a larger sample.

    Args:
        trained: networks with attention or regions.
        config: `data` is read; the size of photos is the networks'.
        split: where the photos are.
        shown: [n] positions of the photos.

    Returns:
        Maps, in the order of `shown`.
    """
    body = _body(trained)
    assert body is not None
    network, variables = body
    config = config.copy_and_resolve_references()
    config.data.body_size = trained.sizes["body"]
    compute = _compiled(network.module)
    attends = "attention" in _intermediates(network.module, trained.sizes["body"])
    measured = choose(split, _MEASURED) if attends and split.has_mask.any() else np.zeros(0, np.int64)
    both = np.concatenate([shown, np.setdiff1d(measured, shown)])
    blocks = []
    for batch in pipeline.eval_batches(dataset.subset(split, both), config, _BATCH, ("body", "cloth_mask")):
        used = batch["valid"]
        known = used & batch["has_mask"]
        values = [np.asarray(value) for value in compute(variables, batch["body"], batch["cloth_mask"])]
        blocks.append([batch["index"][used], *(value[used] for value in values), known[used]])
    at, attention, refined, boxes, clothing, elsewhere, masked = (
        np.concatenate(part) for part in zip(*blocks, strict=True)
    )
    over, beside = (_mean(part[masked]) for part in (clothing, elsewhere))
    first = at < len(shown)
    count = int(masked.sum()) if attends else 0
    return Maps(both[at[first]], attention[first], refined[first], boxes[first], over, beside, count)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _body(trained: LoadedNetworks) -> tuple[Network, Any] | None:
    for network, variables in zip(trained.networks, trained.variables, strict=True):
        if network.without_faces().streams:
            return network, variables
    return None


@functools.lru_cache(maxsize=4)  # two runs of one kind share what is compiled
def _compiled(module: Any) -> Any:
    return jax.jit(functools.partial(_maps, module))


def _maps(module: Any, variables: Any, body: Array, not_clothing: Array) -> tuple[Array, ...]:
    """Returns attention and refined features [batch, rows, columns], boxes [batch, regions, 4], means [batch]."""
    images = augment.normalise_batch({"body": body})
    _, middle = module.apply(variables, {"body": images["body"]}, train=False)
    boxes = middle["body"].get("boxes", jnp.zeros((len(body), 0, 4))).astype(jnp.float32)
    if "attention" not in middle["body"]:
        none, unknown = jnp.zeros((len(body), 0, 0)), jnp.full(len(body), jnp.nan)
        return none, none, boxes, unknown, unknown
    attention = middle["body"]["attention"].astype(jnp.float32)
    refined = jnp.abs(middle["body"]["refined"].astype(jnp.float32)).mean(-1)
    other = losses.cloth_target(not_clothing.astype(jnp.float32), (attention.shape[1], attention.shape[2]), 0.0)
    mean = lambda weight: (attention * weight).sum((1, 2)) / weight.sum((1, 2))  # noqa: E731
    return attention, refined, boxes, mean(1 - other), mean(other)
