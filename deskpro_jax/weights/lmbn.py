"""Name tables of LightMBN: as published (`LMBN_n`) and as DeSKPro's streams name the same network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deskpro_jax.models.lmbn import BRANCHES, PARTS, REDUCED_PARTS
from deskpro_jax.models.osnet import BACKBONES, Backbone
from deskpro_jax.weights.osnet import os_block, tail, trunk
from deskpro_jax.weights.table import Entry, norm


@dataclass(frozen=True)
class Naming:
    """What a LightMBN's modules are called: a trunk, three branches, a neck for each of `PARTS`."""

    trunk: str
    branches: tuple[str, str, str]
    drop_block: str
    shared: str
    necks: tuple[str, ...]


PUBLISHED = Naming(
    trunk="backone",
    branches=("global_branch", "partial_branch", "channel_branch"),
    drop_block="batch_drop_block.drop_batch_bottleneck",
    shared="shared",
    necks=(
        "reduction_0",
        "reduction_4",
        "reduction_1",
        "reduction_2",
        "reduction_3",
        "reduction_ch_0",
        "reduction_ch_1",
    ),
)
DESKPRO = Naming(
    trunk="backbone",
    branches=("global_branch.backbone2", "part_branch.backbone2", "channel_branch.backbone2"),
    drop_block="global_branch.batch_drop_block.drop_batch_bottleneck",
    shared="channel_branch.shared",
    necks=(
        "global_branch.reduction_1",
        "global_branch.reduction_2",
        "part_branch.reduction_1",
        "part_branch.reduction_2",
        "part_branch.reduction_3",
        "channel_branch.reduction_ch_0",
        "channel_branch.reduction_ch_1",
    ),
)


def light_mbn(naming: Naming, *, streams: str, spec: Backbone = BACKBONES["x1_0"]) -> Iterable[Entry]:
    """Yields the entries of one LightMBN stream on the OSNet `spec` under `naming`, without attention."""
    base = naming.trunk
    names = {"stem": f"{base}.0", "conv2": f"{base}.2", "transition2": f"{base}.2.2.0", "block3_0": f"{base}.3"}
    yield from trunk(names, ("trunk",), streams=streams, spec=spec)
    for i, branch in enumerate(naming.branches[: len(BRANCHES)]):
        names = {
            "block3_1": f"{branch}.0.1",
            "transition3": f"{branch}.0.2.0",
            "conv4": f"{branch}.1",
            "conv5": f"{branch}.2",
        }
        yield from tail(names, ("branches",), (i,), streams=streams, spec=spec)
    yield from os_block(naming.drop_block, ("drop_block",), streams=streams, spec=spec)
    yield Entry(f"{naming.shared}.0.weight", "params", ("shared", "conv", "kernel"), (), "pointwise")
    yield from norm(f"{naming.shared}.1", ("shared", "bn"))
    for part, neck in enumerate(naming.necks[: len(PARTS)]):
        if part < REDUCED_PARTS:
            yield Entry(f"{neck}.reduction.weight", "params", ("reduction", "kernel"), (part,), "pointwise")
        yield from norm(f"{neck}.bn", ("neck",), (part,))
        yield Entry(f"{neck}.classifier.weight", "params", ("classifier", "kernel"), (part,), "linear")
