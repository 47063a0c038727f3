"""Embedding: images a second and latency of one body stream by batch size, beside PyTorch where it is installed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

from benchmarks import stream
from benchmarks.races import OURS, Entrant, Race, Settings
from benchmarks.stream import Shape
from benchmarks.timing import rate_and_latency


def races(settings: Settings) -> list[Race]:
    """Returns a race for each batch size."""
    shape, scratch = stream.chosen(settings.quick), str(settings.scratch)
    batches = (2,) if settings.quick else settings.batches
    found = []
    if settings.torch:
        writer = Entrant(OURS, "benchmarks.stream:write", {"scratch": scratch, "shape": shape})
        found.append(Race("weights for PyTorch", (writer,), 0, setup=True))
    for batch in batches:
        arguments = {"shape": shape, "batch": batch, "dtype": settings.dtype, "seconds": settings.seconds}
        others = {"scratch": scratch, "threads": settings.threads, **arguments}
        entrants = [Entrant(OURS, "benchmarks.embedding:embed", arguments)]
        for form in settings.torch:
            entrants.append(Entrant(f"torch {form}", "benchmarks.torch_forms:embed", {"form": form, **others}))
        found.append(Race(f"batch {batch}", tuple(entrants), settings.rounds(7)))
    return found


def embed(shape: Mapping[str, Any], batch: int, dtype: str, seconds: float) -> Iterator[dict[str, float]]:
    """Embeds uint8 images into unit-length parts, without the mirrored image; an entrant."""
    import jax
    import numpy as np
    from jax.sharding import Mesh

    from deskpro_jax.evaluation import evaluate
    from deskpro_jax.methods.deskpro import module as deskpro_module
    from deskpro_jax.models.contract import Network, StreamSpec
    from deskpro_jax.models.lmbn import PARTS
    from deskpro_jax.runtime import sharding
    from deskpro_jax.runtime.flops import count_flops

    jax.config.update("jax_enable_compilation_cache", False)
    sizes = Shape(**shape)
    module = deskpro_module(
        sizes.classes,
        body=True,
        face=False,
        backbone=sizes.backbone,
        attention="none",
        feature_dim=sizes.feature_dim,
        dtype=jax.numpy.dtype(dtype),
    )
    drawn = stream.drawn_variables(sizes)
    mesh = Mesh(np.asarray(jax.local_devices()[:1]), (sharding.DATA_AXIS,))
    variables = [sharding.put_replicated(mesh, {name: {"body_stream": tree} for name, tree in drawn.items()})]
    spec = StreamSpec("body", "body", PARTS, (), sizes.feature_dim)
    run = evaluate.make_embed([Network(module, (spec,))], False, mesh)
    given = {
        "body": stream.images(sizes, batch),
        "has_face": np.ones(batch, np.bool_),
        "valid": np.ones(batch, np.bool_),
    }
    operations = count_flops(cast(jax.stages.Wrapped, run).trace(variables, given).jaxpr.jaxpr)

    def call() -> np.ndarray:
        return np.asarray(run(variables, sharding.put_batch(mesh, given)))

    began = time.perf_counter()
    call()
    taken = time.perf_counter() - began
    call()
    yield {"compile": taken, "operations": operations}
    while True:
        found = rate_and_latency(call, batch, seconds)
        yield {**found, "speed": operations * found["rate"] / batch}
