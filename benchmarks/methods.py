"""Embedding and training step of every published method: images/s beside a plain PyTorch network of the same structure.

python -m benchmarks.run methods                       # all of them
python -m benchmarks.run methods --methods bot,pcb

Each at the size of its recipe, 100 identities, from random weights. Our step is the one that `deskpro train` runs,
augmentation and the losses of the recipe included; PyTorch's has cross-entropy and triplet loss and no augmentation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

from benchmarks.races import OURS, Entrant, Race, Settings
from benchmarks.timing import rate_and_latency
from deskpro_jax.errors import InputError

# Variant of the configuration -> the network that is measured.
METHODS = (
    *("bot", "pcb", "mgn", "hacnn", "osnet", "osnet_ibn", "osnet_ain", "lmbn", "lmbn_r", "reidcaps", "reidcaps_plus"),
)
CLASSES = 100


def races(settings: Settings) -> list[Race]:
    """Returns a race of embedding and one of training for each method."""
    names = settings.methods or METHODS
    if unknown := [name for name in names if name not in METHODS]:
        raise InputError(f"--methods has {unknown[0]!r}; expected some of {', '.join(METHODS)}.")
    batch = 4 if settings.quick else settings.train_batch
    result = []
    for name in names:
        size = list(configuration(name, settings.quick).data.body_size)
        for kind in ("embed", "train"):
            ours = {"method": name, "batch": batch, "seconds": settings.seconds, "quick": settings.quick}
            entrants = [Entrant(OURS, f"benchmarks.methods:{kind}", ours)]
            for form in settings.torch:
                theirs = {"method": name, "form": form, "classes": CLASSES, "size": size, "batch": batch}
                theirs |= {"threads": settings.threads, "seconds": settings.seconds}
                entrants.append(Entrant(f"torch {form}", f"benchmarks.torch_methods:{kind}", theirs))
            # Both have the same layers: their numbers of parameters are equal.
            agree = {} if settings.quick else {"parameters": 0.0}
            result.append(Race(f"{name}, {kind}, batch {batch}", tuple(entrants), settings.rounds(5), agree=agree))
    return result


def configuration(name: str, quick: bool = False) -> Any:
    """Returns the configuration of a method's recipe."""
    from deskpro_jax.configs import base, variants

    return variants.apply(base.get_config(), f"{name},debug" if quick else name)


def _network(name: str, quick: bool) -> tuple[Any, Any, Any, Any, int]:
    import jax
    import numpy as np
    from jax.sharding import Mesh

    from deskpro_jax import methods
    from deskpro_jax.models.contract import image_sizes
    from deskpro_jax.models.initialisers import init_variables
    from deskpro_jax.runtime import sharding

    config = configuration(name, quick)
    (spec,) = methods.phases(config)
    network = spec.network(config, CLASSES)
    drawn = init_variables(network.module, 0, image_sizes(config))
    mesh = Mesh(np.asarray(jax.local_devices()[:1]), (sharding.DATA_AXIS,))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(drawn["params"]))
    return config, spec, network, (mesh, sharding.put_replicated(mesh, drawn)), parameters


def _fields(config: Any, batch: int) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(1)
    return {
        "body": rng.integers(0, 256, (batch, *config.data.body_size, 3), np.uint8),
        "identity": np.arange(batch) // 2,
        "valid": np.ones(batch, np.bool_),
        "has_face": np.ones(batch, np.bool_),
    }


def embed(method: str, batch: int, seconds: float, quick: bool) -> Iterator[dict[str, float]]:
    """Embeds uint8 images into unit-length parts, without the mirrored image; an entrant."""
    import jax
    import numpy as np

    from deskpro_jax.evaluation import evaluate
    from deskpro_jax.runtime import sharding
    from deskpro_jax.runtime.flops import count_flops

    jax.config.update("jax_enable_compilation_cache", False)
    config, _, network, (mesh, variables), parameters = _network(method, quick)
    run = evaluate.make_embed([network], False, mesh)
    fields = {name: value for name, value in _fields(config, batch).items() if name != "identity"}
    operations = count_flops(cast(jax.stages.Wrapped, run).trace([variables], fields).jaxpr.jaxpr)

    def call() -> np.ndarray:
        return np.asarray(run([variables], sharding.put_batch(mesh, fields)))

    began = time.perf_counter()
    call()
    yield {"parameters": parameters, "compile": time.perf_counter() - began, "operations": operations}
    while True:
        yield rate_and_latency(call, batch, seconds)


def train(method: str, batch: int, seconds: float, quick: bool) -> Iterator[dict[str, float]]:
    """Takes training steps of the method's recipe; an entrant."""
    import jax
    import numpy as np

    from deskpro_jax.runtime import cpu, sharding
    from deskpro_jax.runtime.compilation import compile_now
    from deskpro_jax.train import optimisers, schedules
    from deskpro_jax.train import step as training

    cpu.keep_working_memory()  # as the command
    jax.config.update("jax_enable_compilation_cache", False)
    config, spec, network, (mesh, variables), parameters = _network(method, quick)
    rate = schedules.schedule(np.asarray([1e-5]), 1)
    optimizer = optimisers.of_recipe(spec.recipe, rate, config.train)
    whole = sharding.replicated(mesh)
    create = jax.jit(lambda drawn: training.create_state(drawn, optimizer), out_shardings=whole)
    step = training.make_train_step(network.module, optimizer, config, spec.recipe, None, 1)
    key = jax.random.wrap_key_data(sharding.put_replicated(mesh, jax.random.key_data(jax.random.key(0))))
    arguments = [create(variables), None, sharding.put_batch(mesh, _fields(config, batch)), key]
    began = time.perf_counter()
    program = compile_now(training.jit_step(step, mesh, arguments[0], None), *arguments)
    taken = time.perf_counter() - began

    def call() -> float:
        arguments[0], terms = program(*arguments)
        return float(terms["total"])

    call()
    yield {"parameters": parameters, "compile": taken}
    while True:
        yield rate_and_latency(call, batch, seconds)
