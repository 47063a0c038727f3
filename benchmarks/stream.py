"""The network and the images that JAX and PyTorch are compared on: one LightMBN stream, a file both sides read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

FILE = "stream.safetensors"


@dataclass(frozen=True)
class Shape:
    """Sizes of the stream.

    Attributes:
        backbone: name of the OSNet.
        height: of the images, in pixels.
        width: of the images, in pixels.
        classes: identities that are told apart in training; Celeb-reID has 632.
        feature_dim: size of each part's embedding.
    """

    backbone: str = "x1_0"
    height: int = 384
    width: int = 128
    classes: int = 632
    feature_dim: int = 512


QUICK = Shape("x0_25", 64, 32, 16, 32)


def chosen(quick: bool) -> dict[str, Any]:
    """Returns the arguments of a `Shape` as JSON values."""
    return asdict(QUICK if quick else Shape())


def images(shape: Shape, batch: int) -> np.ndarray:
    """Returns uint8 images [batch, height, width, 3], the same in every process."""
    return np.random.default_rng(1).integers(0, 256, (batch, shape.height, shape.width, 3), np.uint8)


def labels(shape: Shape, batch: int) -> np.ndarray:
    """Returns classes [batch], two images of each as long as there are classes."""
    return (np.arange(batch) // 2 % shape.classes).astype(np.int32)


def drawn_variables(shape: Shape) -> dict[str, Any]:
    """Returns variables of the body stream, from its own root, with normalisations that all differ from one another."""
    from deskpro_jax.weights.families import Stream
    from deskpro_jax.weights.load import initial_variables

    stream = Stream("body", "", shape.backbone, "none", shape.feature_dim, shape.classes)
    return _disturbed(initial_variables(stream, "abcd", 0), np.random.default_rng(2))


def _disturbed(tree: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Moves scales, biases and statistics off ones and zeros, which would hide a mistake in the names."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            # The bias of a BNNeck is zero for ever.
            found[name] = dict(value) if name == "neck" and "bias" in value else _disturbed(value, rng)
        elif name in ("scale", "var"):
            found[name] = (value * rng.uniform(0.8, 1.2, value.shape)).astype(value.dtype)
        elif name in ("bias", "mean"):
            found[name] = (value + rng.uniform(-0.1, 0.1, value.shape)).astype(value.dtype)
        else:
            found[name] = value
    return found


def write(scratch: str, shape: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    """Writes the stream under LightMBN's published names, with images and what they give; an entrant."""
    import jax

    from deskpro_jax.data.load.augment import normalise
    from deskpro_jax.models.lmbn import LightMBN
    from deskpro_jax.weights import lmbn, table

    sizes = Shape(**shape)
    variables = drawn_variables(sizes)
    module = LightMBN(sizes.classes, sizes.backbone, feature_dim=sizes.feature_dim)
    given = images(sizes, 2)
    with jax.default_matmul_precision("float32"):
        outputs, _ = jax.jit(lambda v, x: module.apply(v, normalise(x), train=False))(variables, given)
    tensors = {
        name: np.ascontiguousarray(value)
        for name, value in table.dump(lmbn.light_mbn(lmbn.PUBLISHED, streams="abcd"), variables).items()
    }
    extra = {f"output.{name}": np.asarray(value) for name, value in outputs.items()}
    safetensors.numpy.save_file({**tensors, **extra}, Path(scratch) / FILE)
    yield {}


def read(scratch: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns tensors by published name, and the outputs for `images(shape, 2)` by name."""
    tensors = safetensors.numpy.load_file(Path(scratch) / FILE)
    outputs = {name.removeprefix("output."): tensors.pop(name) for name in list(tensors) if name.startswith("output.")}
    return tensors, outputs
