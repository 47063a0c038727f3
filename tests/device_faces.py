"""Script of test_detection.py: prints how far one detection batch on all devices is from the same on one device."""

from __future__ import annotations

import functools
import json

import jax
import numpy as np
from jax.sharding import Mesh

from data_prep.detection import detect, load, model
from deskpro_jax.models import initialisers
from deskpro_jax.runtime import sharding

CANVAS = (64, 32)


def main() -> None:
    """Prints the number of devices that hold a part of the result and the largest difference of each output."""
    images = np.random.default_rng(0).integers(0, 256, (16, *CANVAS, 3), np.uint8)
    sizes = np.random.default_rng(1).integers(20, 33, (16, 2)).astype(np.int32)
    network = model.RetinaFace()
    variables = initialisers.draw(lambda key: network.init(key, np.zeros((1, 32, 32, 3), np.float32)), 0)
    # From pixels of 0 to 255 to outputs of the order of 1.
    variables["params"]["body"]["stem"]["kernel"] *= 0.01
    detector = load.Detector("mobilenet0.25", variables, "")
    run = jax.jit(
        functools.partial(detect.detect_raw, detector), compiler_options={"xla_backend_optimization_level": 0}
    )
    alone = run(jax.device_put(variables, jax.devices()[0]), images, sizes)
    mesh = Mesh(np.asarray(jax.devices()), (sharding.DATA_AXIS,))
    rows = sharding.put_batch(mesh, {"images": images, "sizes": sizes})
    split = run(sharding.put_replicated(mesh, variables), rows["images"], rows["sizes"])
    worst = {
        name: float(np.abs(np.asarray(one) - np.asarray(other)).max() / np.abs(np.asarray(one)).max())
        for name, one, other in zip(alone._fields, alone, split, strict=True)
    }
    parts = [len({str(shard.index) for shard in output.addressable_shards}) for output in split]
    print(json.dumps({"parts": parts, "worst": worst}))


if __name__ == "__main__":
    main()
