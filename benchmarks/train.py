"""Training step of each phase: images/s, compiling cold and from the persistent cache, memory, share of the peak.

The phases are "stream" (one LightMBN body stream, cross-entropy and triplet loss, beside PyTorch where it is
installed), "teacher" (face stream on restored faces) and "student" (body and face stream with attention, the frozen
teacher run along). Our step is the one that `deskpro_jax.main` runs, augmentation included; PyTorch's has none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import stream
from benchmarks.races import BEGAN, OURS, Entrant, Race, Settings
from benchmarks.stream import Shape
from benchmarks.timing import matrix_peak, rate_and_latency

PHASES = ("stream", "teacher", "student")
FACE = (224, 224)


def races(settings: Settings) -> list[Race]:
    """Returns for each phase a race that compiles cold and one that takes steps, from what the first one cached."""
    shape, scratch = stream.chosen(settings.quick), str(settings.scratch)
    batch = 4 if settings.quick else settings.train_batch
    given = {"shape": shape, "batch": batch, "dtype": settings.dtype, "scratch": scratch}
    found = []
    if settings.torch and "stream" in settings.phases:
        writer = Entrant(OURS, "benchmarks.stream:write", {"scratch": scratch, "shape": shape})
        found.append(Race("weights for PyTorch", (writer,), 0, setup=True))
    for phase in settings.phases:
        forms = settings.torch if phase == "stream" else ()
        ours = {"phase": phase, "face": [32, 32] if settings.quick else list(FACE), **given}
        cold = [Entrant(OURS, "benchmarks.train:compile_cold", ours)]
        steps = [Entrant(OURS, "benchmarks.train:step", {**ours, "seconds": settings.seconds})]
        for form in forms:
            arguments = {"form": form, "threads": settings.threads, **given}
            if form.startswith("compiled"):
                cold.append(Entrant(f"torch {form}", "benchmarks.torch_forms:compile_cold", arguments))
            arguments = {**arguments, "seconds": settings.seconds}
            steps.append(Entrant(f"torch {form}", "benchmarks.torch_forms:train", arguments))
        found += [Race(f"{phase}, cold", (entrant,), 0) for entrant in cold]
        # The first loss tells whether both sides take the same step; bfloat16 rounds it away.
        agree = {"loss": 1e-3} if settings.dtype == "float32" else {}
        found.append(Race(f"{phase}, batch {batch}", tuple(steps), settings.rounds(7), agree=agree))
    return found


def configuration(phase: str, shape: Shape, face: tuple[int, int], batch: int, dtype: str) -> Any:
    """Returns the configuration of a phase's step."""
    from deskpro_jax.configs import base

    config = base.get_config()
    config.data.body_size = (shape.height, shape.width)
    config.data.face_size = face
    config.data.identities, config.data.images_per_identity = max(1, batch // 2), 2
    config.model.backbone, config.model.feature_dim, config.model.dtype = shape.backbone, shape.feature_dim, dtype
    # Drawn as ever, but never applied: the first loss can be compared.
    config.augment.flip = config.augment.erase = 0.0
    if phase == "stream":
        config.model.face, config.model.attention, config.loss.attention_weight = "none", "none", 0.0
    return config


class Step:
    """A phase's step with its state; to be compiled, then called."""

    def __init__(self, phase: str, face: tuple[int, int], shape: Shape, batch: int, dtype: str):
        """Draws the state and jits the step, without compiling it."""
        import jax
        import numpy as np
        from jax.sharding import Mesh

        from deskpro_jax import methods
        from deskpro_jax.models.initialisers import init_variables
        from deskpro_jax.runtime import sharding
        from deskpro_jax.train import optimisers, schedules
        from deskpro_jax.train import step as train

        config = configuration(phase, shape, face, batch, dtype)
        specs = {spec.name: spec for spec in methods.phases(config)}
        spec = specs["teacher" if phase == "teacher" else "student"]
        module = spec.network(config, shape.classes).module
        teacher = specs["teacher"].network(config, shape.classes).module if spec.recipe.teacher else None
        optimizer = optimisers.adam(schedules.schedule(np.asarray([1e-5]), 1), config.train.weight_decay)
        mesh = Mesh(np.asarray(jax.local_devices()[:1]), (sharding.DATA_AXIS,))
        if phase == "stream":
            drawn = {name: {"body_stream": tree} for name, tree in stream.drawn_variables(shape).items()}
        else:
            drawn = init_variables(module, 0)
        whole = sharding.replicated(mesh)
        create = jax.jit(lambda variables: train.create_state(variables, optimizer), out_shardings=whole)
        state = create(sharding.put_replicated(mesh, drawn))
        others = sharding.put_replicated(mesh, init_variables(teacher, 1)) if teacher else None
        key = sharding.put_replicated(mesh, jax.random.key_data(jax.random.key(0)))
        self._step = train.make_train_step(module, optimizer, config, spec.recipe, teacher, 1)
        self._arguments = (
            state,
            others,
            sharding.put_batch(mesh, _batch(phase, shape, face, batch)),
            jax.random.wrap_key_data(key),
        )
        self._jitted = train.jit_step(self._step, mesh, state, others)

    def operations(self) -> int:
        """Returns the operations of a step, see `flops.count_flops`."""
        import jax

        from deskpro_jax.runtime.flops import count_flops

        return count_flops(jax.make_jaxpr(self._step)(*self._arguments).jaxpr)

    def compile(self) -> dict[str, float]:
        """Compiles the step, or reads it from the cache as a command does; returns the seconds and memory it takes."""
        from deskpro_jax.runtime.compilation import compile_now

        start = time.perf_counter()
        self._program = compile_now(self._jitted, *self._arguments)
        found = {"compile": time.perf_counter() - start}
        analysis = self._program.memory_analysis()
        if analysis is not None:
            # A donated state is argument and result at once.
            whole = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
            found["temporary memory"] = analysis.temp_size_in_bytes
            found["program memory"] = whole + analysis.temp_size_in_bytes
        return found

    def __call__(self) -> float:
        """Takes a step; returns its loss."""
        state, terms = self._program(*self._arguments)
        self._arguments = (state, *self._arguments[1:])
        return float(terms["total"])


def _batch(phase: str, shape: Shape, face: tuple[int, int], batch: int) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(3)
    fields: dict[str, Any] = {name: np.ones(batch, np.bool_) for name in ("has_face", "has_mask", "valid")}
    fields["identity"] = stream.labels(shape, batch)
    if phase != "teacher":
        fields["body"] = stream.images(shape, batch)
        fields["cloth_mask"] = rng.integers(0, 2, (batch, shape.height, shape.width), np.uint8)
    if phase == "student":
        fields["face"] = rng.integers(0, 256, (batch, *face, 3), np.uint8)
    if phase != "stream":
        fields["restored_face"] = rng.integers(0, 256, (batch, *face, 3), np.uint8)
    return fields


def _prepared(
    phase: str, face: Sequence[int], shape: Mapping[str, Any], batch: int, dtype: str, scratch: str
) -> tuple[Step, dict[str, float]]:
    import jax

    from deskpro_jax.runtime import cpu

    cpu.keep_working_memory()  # as the command
    jax.config.update("jax_compilation_cache_dir", f"{scratch}/xla_cache")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    step = Step(phase, (face[0], face[1]), Shape(**shape), batch, dtype)
    found = step.compile()
    loss = step()
    return step, {**found, "start": time.time() - float(os.environ[BEGAN]), "loss": loss}


def compile_cold(**arguments: Any) -> Iterator[dict[str, float]]:
    """Compiles the step without a cache and takes it once; an entrant of no rounds."""
    yield _prepared(**arguments)[1]


def step(seconds: float, **arguments: Any) -> Iterator[dict[str, float]]:
    """Takes training steps with a program from the persistent cache; an entrant."""
    import jax

    from deskpro_jax.runtime import cpu

    run, found = _prepared(**arguments)
    run()
    with cpu.freed_memory_returned():  # no run counts them
        operations = run.operations()
    batch, peak = arguments["batch"], matrix_peak(arguments["dtype"])
    yield {**found, "operations": operations, "machine's peak": peak}
    while True:
        run()  # a machine takes back memory that idled while others had their turn
        figures = rate_and_latency(run, batch, seconds)
        speed = operations * figures["rate"] / batch
        figures |= {"speed": speed, "share of peak": 100 * speed / peak}
        used = jax.devices()[0].memory_stats()
        if used:
            figures["device memory"] = used["peak_bytes_in_use"]
        yield figures
