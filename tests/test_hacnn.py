"""HACNN: its names, its photos, its regions; bilinear sampling as PyTorch's grids do it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from configs import base
from deskpro_jax import methods
from deskpro_jax.cli import convert
from deskpro_jax.errors import InputError
from deskpro_jax.methods import hacnn
from deskpro_jax.models import initialisers, sampling
from deskpro_jax.weights import published
from deskpro_jax.workdir.networks import load_networks
from golden_rule import state_dict

MANIFEST = json.loads((Path(__file__).parent / "golden" / "methods" / "hacnn_manifest.json").read_text())["hacnn"]
IMAGES = (2, 160, 64, 3)


@pytest.fixture(scope="module")
def tiny() -> tuple[hacnn.HACNN, Any]:
    """A narrow HACNN and its initial variables."""
    network = hacnn.HACNN(3, (32, 48, 64), 8)
    return network, initialisers.draw(lambda key: network.init(key, jnp.zeros(IMAGES), train=False), 0)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_its_tensors_are_called_as_in_torchreids_files(tiny: tuple[hacnn.HACNN, Any]) -> None:
    there, absent = published.entries(hacnn.NAMES[0], tiny[1])
    expected = {name for name in MANIFEST if not name.endswith("num_batches_tracked")}
    assert {entry.name for entry in there} == expected
    assert not absent


def test_regions_start_where_the_biases_say(tiny: tuple[hacnn.HACNN, Any]) -> None:
    network, variables = tiny
    outputs, middle = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, normal(0, *IMAGES))
    start = np.tanh([[0, -0.75], [0, -0.25], [0, 0.25], [0, 0.75]])
    np.testing.assert_allclose(middle["regions"], np.broadcast_to(start, (2, 3, 4, 2)), atol=1e-6)
    assert middle["attention"].shape == (2, 10, 4)
    first = middle["boxes"][0, 0]  # a quarter of the photo's height around its shift, over the whole width
    np.testing.assert_allclose(first, [(start[0, 1] + 0.75) / 2, 0, (start[0, 1] + 1.25) / 2, 1], atol=1e-6)
    assert {name: value.shape for name, value in outputs.items()} == {
        "logits": (2, 2, 3),
        "features": (2, 2, 8),
        "embeddings": (2, 2, 8),
    }


def test_padding_stays_out_of_all_statistics(tiny: tuple[hacnn.HACNN, Any]) -> None:
    network, variables = tiny
    images = normal(0, 3, *IMAGES[1:])
    run = jax.jit(lambda v, x, valid: network.apply(v, x, train=True, valid=valid, mutable=["batch_stats"]))
    (whole, _), moved = run(variables, images[:2], None)
    (padded, _), moved_padded = run(variables, images, np.array([True, True, False]))
    np.testing.assert_allclose(padded["logits"][:, :2], whole["logits"], rtol=1e-3, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), moved, moved_padded)


def test_other_sizes_faces_and_csa_are_refused_by_name() -> None:
    config = base.get_config()
    config.update_from_flattened_dict(methods.variants()["hacnn"])
    hacnn.check(config)
    config.model.attention = "paper"
    with pytest.raises(InputError, match=r"model\.attention is 'paper'"):
        hacnn.check(config)
    config.data.body_size = (256, 128)
    with pytest.raises(InputError, match=r"data\.body_size is 256x128; HACNN takes photos of 160x64 only"):
        hacnn.check(config)


def test_a_file_of_this_package_says_how_its_regions_are_sampled(tmp_path: Path) -> None:
    tensors = {n: np.asarray(v, np.float32) for n, v in state_dict(MANIFEST, 1).items() if v.dtype.kind == "f"}
    safetensors.numpy.save_file({n: np.ascontiguousarray(v) for n, v in tensors.items()}, tmp_path / "zoo.safetensors")
    assert convert.main([str(tmp_path / "zoo.safetensors"), "--to", str(tmp_path / "zoo")]) == 0
    record = json.loads((tmp_path / "zoo" / "conversion.json").read_text())
    assert record["model"]["align_corners"] is True  # as torch < 1.3 did, by which torchreid's files were trained
    record["model"]["align_corners"] = False
    (tmp_path / "zoo" / "conversion.json").write_text(json.dumps(record))
    assert convert.main([str(tmp_path / "zoo"), "--to", str(tmp_path / "own.safetensors")]) == 0
    assert load_networks(tmp_path / "own.safetensors").config.model.align_corners is False


def bilinear(image: np.ndarray, row: float, column: float) -> np.ndarray:
    """Returns the pixel at a position between pixels, zeros outside: the definition, pixel by pixel."""
    value = np.zeros(image.shape[-1])
    for i in (int(np.floor(row)), int(np.floor(row)) + 1):
        for j in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                value += (1 - abs(row - i)) * (1 - abs(column - j)) * image[i, j]
    return value


@pytest.mark.parametrize("align_corners", [False, True])
def test_regions_are_interpolated_at_the_positions_of_the_affine_map(align_corners: bool) -> None:
    with jax.enable_x64(True):
        x, shifts, scale = normal(0, 1, 6, 5, 2), np.array([[[0.3, -0.9], [-1.4, 0.1]]]), (1.0, 0.25)
        found = sampling.sample_regions(jnp.asarray(x), jnp.asarray(shifts), scale, (6, 5), align_corners=align_corners)
    for region in range(2):
        for i in range(6):
            for j in range(5):
                place = []
                for axis, index, size in ((1, i, 6), (0, j, 5)):
                    grid = 2 * index / (size - 1) - 1 if align_corners else (2 * index + 1) / size - 1
                    moved = scale[axis] * grid + shifts[0, region, axis]
                    place.append((moved + 1) / 2 * (size - 1) if align_corners else ((moved + 1) * size - 1) / 2)
                np.testing.assert_allclose(found[0, region, i, j], bilinear(x[0], *place), atol=1e-12)


def test_maps_are_resized_with_their_corners_in_place() -> None:
    with jax.enable_x64(True):
        x = normal(0, 1, 5, 2, 3)
        found = np.asarray(sampling.resize(jnp.asarray(x), (10, 4)))
    np.testing.assert_allclose(found[0, [0, 0, -1, -1], [0, -1, 0, -1]], x[0, [0, 0, -1, -1], [0, -1, 0, -1]])
    np.testing.assert_allclose(found[0, 3, 2], bilinear(x[0], 3 * 4 / 9, 2 * 1 / 3), atol=1e-12)


def test_on_a_pixel_the_gradient_looks_to_the_next_pixel() -> None:
    value = lambda position: (sampling.weights(position, 4) * jnp.array([1.0, 3.0, 7.0, 20.0])).sum()  # noqa: E731
    assert jax.grad(value)(jnp.array(1.0)) == 4.0
    assert jax.grad(value)(jnp.array(1.5)) == 4.0
