"""Times calls."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np


def call_seconds(call: Callable[[], object], seconds: float) -> list[float]:
    """Returns how long each call took, repeated until `seconds` are over, once at least.

    Args:
        call: returns when the work is done, not merely begun.
        seconds: how long to repeat it.
    """
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def rate_and_latency(call: Callable[[], object], images: int, seconds: float) -> dict[str, float]:
    """Returns the figures of a round: images a second over all calls, and how long a call takes."""
    times = call_seconds(call, seconds)
    return {
        "rate": images * len(times) / sum(times),
        "latency": float(np.median(times)),
        "latency, 95th percentile": float(np.percentile(times, 95)),
    }


def matrix_peak(dtype: str = "float32", size: int = 2048) -> float:
    """Returns the operations a second of a large matrix product on jax's first device: the peak one can hope for.

    Of NumPy's product and XLA's the faster counts, where the device is a CPU and the type one that NumPy has. In a
    process of its own, so that its memory does not count as the entrant's.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_matrix_peak, dtype, size).result()


def _matrix_peak(dtype: str, size: int) -> float:
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    size = size if jax.default_backend() == "cpu" else 4 * size
    one, other = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    on_device = [jax.device_put(jnp.asarray(array, dtype), jax.devices()[0]) for array in (one, other)]
    product = jax.jit(jnp.matmul).lower(*on_device).compile()
    times = [min(call_seconds(lambda: product(*on_device).block_until_ready(), 1.0))]
    if jax.default_backend() == "cpu" and dtype == "float32":
        times.append(min(call_seconds(lambda: one @ other, 1.0)))
    return 2 * size**3 / min(times)
