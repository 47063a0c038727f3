"""What embedding with a trained run costs: parameters, operations per image, images per second.

    python -m deskpro_jax.tables.costs WORKDIR

writes `costs.json` into the workdir. It is a process of its own: networks that a table opened would keep an
accelerator's memory from the runs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from deskpro_jax.errors import end_command
from deskpro_jax.storage.files import read_json, write_json

FILE = "costs.json"
_CALLS = 5  # that are timed, after one that compiles
_SECONDS = 10.0  # after which no further call is timed


class Costs(NamedTuple):
    """What embedding costs.

    Attributes:
        parameters: of the networks of the embedding, without classifiers.
        gflop: operations of convolutions and matrix products for one image in 1e9, two for each multiply-add; that of
            the mirrored image included where it is added.
        images_per_second: embedded at a time by the batch of evaluation, from images in memory; median of some calls.
        device: that they were embedded on.
    """

    parameters: int
    gflop: float
    images_per_second: float
    device: str


def read_costs(folder: Path) -> Costs | None:
    """Returns the costs that were measured of the run in `folder`; None where they were not."""
    record = read_json(folder / FILE)
    try:
        return None if record is None else Costs(**record)
    except TypeError:  # of another version
        return None


def measure_apart(folder: Path) -> str:
    """Measures the costs of the run in `folder` in a process of its own; returns why it failed, "" otherwise."""
    command = [sys.executable, "-m", __name__, str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = process.stderr.strip().splitlines() or ["it printed nothing"]
    return lines[-1].removeprefix("error: ") if process.returncode else ""


def measure(folder: Path) -> Costs:
    """Measures the costs of embedding with the networks of a workdir."""
    import jax
    import numpy as np

    from deskpro_jax.evaluation.evaluate import make_embed
    from deskpro_jax.models.contract import CLASSIFIER
    from deskpro_jax.runtime import sharding
    from deskpro_jax.runtime.flops import count_flops
    from deskpro_jax.workdir.networks import load_networks

    loaded = load_networks(folder)
    config, mesh = loaded.config, sharding.make_mesh(loaded.config)
    variables = [sharding.put_variables(mesh, values) for values in loaded.variables]
    embed: Any = make_embed(loaded.networks, config.eval.flip, mesh, config.eval.distance)
    rows = -(-config.eval.batch // mesh.size) * mesh.size
    random = np.random.default_rng(0)
    batch: dict[str, Any] = {
        name: random.integers(0, 256, (rows, *loaded.sizes[name], 3), np.uint8)
        for name in {image for network in loaded.networks for image in network.images}
    }
    batch |= {"valid": np.ones(rows, bool), "has_face": np.ones(rows, bool)}
    parameters = 0
    for values in loaded.variables:
        for path, leaf in jax.tree_util.tree_leaves_with_path(values["params"]):
            if not any(str(getattr(key, "key", key)).startswith(CLASSIFIER) for key in path):
                parameters += leaf.size
    flops = count_flops(embed.trace(variables, batch).jaxpr.jaxpr)
    seconds: list[float] = []
    jax.block_until_ready(embed(variables, batch))
    while len(seconds) < _CALLS and sum(seconds) < _SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(embed(variables, batch))
        seconds.append(time.perf_counter() - start)
    device = jax.devices()[0]
    return Costs(
        parameters, flops / rows / 1e9, rows / statistics.median(seconds), f"{device.platform}:{device.device_kind}"
    )


def main() -> int:
    """Measures the workdir that the command line names; returns the exit code."""
    folder = Path(sys.argv[1])
    return end_command(lambda: write_json(folder / FILE, measure(folder)._asdict()))


if __name__ == "__main__":
    sys.exit(main())
