"""GPEN gives what the published code gives, from files that are what they claim to be."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data_prep_golden as golden
import runs
import torch_files
from data_prep.restoration.layers import ModulatedConv
from data_prep.restoration.load import Restorer, load_restorer, template, to_variables
from data_prep.restoration.model import BFR_256, BFR_512, GPEN, Architecture
from data_prep.restoration.names import gpen, recognise
from data_prep.restoration.ops import fused_leaky_relu, upfirdn2d
from data_prep.restoration.restore import restore
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.weights import table

TOLERANCE = 2e-5  # of outputs up to 6, which float32 rounding reaches
OPERATIONS = {
    "up": {"up": 2, "pad": (2, 1)},
    "down": {"down": 2, "pad": (1, 1)},
    "blur": {"pad": (2, 2)},
    "neg": {"up": 2, "pad": (-1, 1)},
}
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "upsample": {"upsample": True},
    "torgb": {"size": 1, "demodulate": False},
}
SMALL = Architecture((4, 6, 8), style_dim=12, mapping_layers=2)  # 16 pixels


def nhwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1)


def nchw(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64).transpose(0, 3, 1, 2)


def statistics(array: Any) -> np.ndarray:
    values = np.asarray(array, np.float64)
    return np.array([values.mean(), values.std(ddof=1), np.abs(values).max()])


def published(name: str) -> dict[str, np.ndarray]:
    tensors = golden.state_dict(golden.manifest(f"{name}_manifest.json"), "gpen")
    return {key: value.astype(np.float32) for key, value in tensors.items()}


def drawn(architecture: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a state dict of any sizes, filled as the golden ones are."""
    variables = template(architecture)
    tensors = {}
    for entry in gpen(architecture):
        leaf = functools.reduce(lambda tree, part: tree[part], entry.path, variables[entry.collection])
        shape = table.torch_shape(leaf.shape, entry.kind)
        tensors[entry.name] = golden.fill(entry.name, shape, "gpen", seed).astype(np.float32)
    return tensors


apply = jax.jit(GPEN(SMALL).apply)
restored = jax.jit(restore, static_argnums=0, static_argnames="dtype")


@pytest.fixture(scope="module")
def small() -> Restorer:
    return Restorer(SMALL.size, SMALL, to_variables(SMALL, drawn(SMALL)), "")


@pytest.fixture(scope="module")
def small_faces() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, SMALL.size, SMALL.size, 3), np.uint8)


@pytest.mark.parametrize("name", OPERATIONS)
def test_filtered_resampling_agrees(name: str) -> None:
    data, _ = golden.arrays("gpen_ops.npz")
    found = upfirdn2d(jnp.asarray(nhwc(data["x"]), jnp.float32), jnp.asarray(data["k"]), **OPERATIONS[name])
    np.testing.assert_allclose(nchw(found), data[f"upfirdn_{name}"], atol=TOLERANCE)


def test_the_fused_activation_agrees() -> None:
    data, _ = golden.arrays("gpen_ops.npz")
    found = fused_leaky_relu(jnp.asarray(nhwc(data["x"]), jnp.float32), jnp.asarray(data["bias"]))
    np.testing.assert_allclose(nchw(found), data["fused_lrelu"], atol=TOLERANCE)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_modulated_convolutions_agree(name: str) -> None:
    data, _ = golden.arrays("gpen_ops.npz")
    part = {key.removeprefix(f"mod_{name}_"): value for key, value in data.items() if key.startswith(f"mod_{name}_")}
    linear = {"kernel": part["modulation.weight"].T, "bias": part["modulation.bias"]}
    variables: dict[str, Any] = {
        "params": {"kernel": part["weight"].transpose(0, 3, 4, 2, 1), "modulation": linear},
        "buffers": {"blur": {"kernel": golden.fill("up.conv.blur.kernel", (4, 4), "gpen")}}
        if name == "upsample"
        else {},
    }
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), variables)
    layer = ModulatedConv(part["weight"].shape[1], **CONVOLUTIONS[name])
    x, style = (jnp.asarray(a, jnp.float32) for a in (nhwc(data["x"]), part["style"]))
    np.testing.assert_allclose(nchw(layer.apply(variables, x, style)), part["out"], atol=TOLERANCE)


def assert_whole_network_agrees(name: str, restorer: Restorer) -> None:
    data, _ = golden.arrays(f"{name}.npz")
    size = restorer.size
    x = jnp.asarray(golden.image(size, size) * 2 - 1, jnp.float32)
    image, middle = jax.jit(GPEN(restorer.architecture).apply)(restorer.variables, x)
    output = nchw(image)
    found = {
        "out": output,
        "out_sub4": output[:, :, ::4, ::4],
        "out_corner32": output[:, :, :32, :32],
        "out_tail32": output[:, :, -32:, -32:],
        "final_linear": middle["code"],
        "style": middle["latent"],
        **{f"rgb{level.shape[1]}": nchw(level) for level in middle["rgb"]},
    }
    figures = {f"stat_{key}": value for key, value in found.items()}
    figures |= {f"stat_ecd{i}": nchw(level) for i, level in enumerate(middle["encoded"])}
    unknown = set(data) - set(found) - set(figures)
    assert not unknown, "the case holds what is not compared"
    for key, expected in data.items():
        value = statistics(figures[key]) if key in figures else found[key]
        np.testing.assert_allclose(value, expected, atol=TOLERANCE, err_msg=key)


def test_a_small_network_read_from_a_file_agrees_throughout(tmp_path: Path) -> None:
    golden.available("gpen_tiny64.npz")
    file = torch_files.torch_zip(published("gpen_tiny64"))
    restorer = load_restorer(torch_files.save(tmp_path / "tiny.pth", file))
    assert_whole_network_agrees("gpen_tiny64", restorer)


def test_bfr_256_agrees_throughout() -> None:
    golden.available("gpen_bfr256.npz")
    tensors = published("gpen_bfr256")
    architecture = recognise(tensors)
    assert architecture is not None
    restorer = Restorer(architecture.size, architecture, to_variables(architecture, tensors), "")
    assert_whole_network_agrees("gpen_bfr256", restorer)


@pytest.mark.parametrize(
    ("name", "architecture", "size", "parameters"),
    [("gpen_bfr256", BFR_256, 256, 18.9), ("gpen_bfr512", BFR_512, 512, 71.0)],
)
def test_published_files_are_recognised_and_used_to_the_last_tensor(
    name: str, architecture: Architecture, size: int, parameters: float
) -> None:
    shapes = golden.manifest(f"{name}_manifest.json")
    tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes}
    assert recognise(tensors) == architecture
    assert architecture.size == size
    assert {entry.name for entry in gpen(architecture)} == set(tensors)
    variables = to_variables(architecture, tensors)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert round(count / 1e6, 1) == parameters
    assert count + sum(leaf.size for leaf in jax.tree.leaves(variables["buffers"])) == sum(
        int(np.prod(shape)) for _, shape in shapes
    )


def test_wrapped_and_half_precision_files_load_alike(tmp_path: Path) -> None:
    tensors = {name: value.astype(np.float16) for name, value in drawn(SMALL).items()}
    plain = torch_files.save(tmp_path / "plain.pth", torch_files.torch_zip(tensors))
    wrapped = {"state_dict": {f"module.{name}": value for name, value in tensors.items()}}
    legacy = torch_files.save(tmp_path / "wrapped.pth", torch_files.torch_legacy(wrapped))
    one, other = load_restorer(plain), load_restorer(legacy)
    assert (one.size, one.architecture, one.name) == (16, SMALL, "GPEN-BFR-16")
    assert len({one.checksum, other.checksum}) == 2
    assert all(len(restorer.checksum) == 64 for restorer in (one, other))
    for left, right in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        assert left.dtype == np.float32
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "name", ["ecd1.0.0.kernel", "generator.to_rgbs.0.upsample.kernel", "generator.conv1.noise.weight", "ecd0.0.1.bias"]
)
def test_a_tensor_that_is_missing_or_odd_is_named(name: str, tmp_path: Path) -> None:
    tensors = drawn(SMALL)
    whole = tensors[name]
    for value in (None, whole[:0], np.zeros(whole.shape, np.int64)):
        rest = {key: held for key, held in tensors.items() if key != name}
        file = torch_files.torch_zip(rest if value is None else {**rest, name: value})
        path = torch_files.save(tmp_path / "GPEN.pth", file)
        with pytest.raises(InputError, match=rf"GPEN\.pth holds a GPEN restorer \(16 px\)(?s:.*){name}"):
            load_restorer(path)


def test_a_tensor_too_many_is_named() -> None:
    with pytest.raises(InputError, match=r"generator\.noises\.noise_0"):
        to_variables(SMALL, {**drawn(SMALL), "generator.noises.noise_0": np.zeros((1, 1, 4, 4), np.float32)})


def test_a_network_with_a_level_missing_is_no_restorer(tmp_path: Path) -> None:
    tensors = {name: value for name, value in drawn(SMALL).items() if not name.startswith("ecd1.")}
    with pytest.raises(InputError, match="not a whole GPEN restorer"):
        load_restorer(torch_files.save(tmp_path / "cut.pth", torch_files.torch_zip(tensors)))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"ClassHead.0.conv1x1.weight": (4, 64, 1, 1), "body.stage1.0.0.weight": (8, 3, 3, 3)}, "RetinaFace detector"),
        ({"module.fushion.3.weight": (20, 256, 1, 1)}, "SCHP parser"),
        ({"conv1.conv.weight": (64, 3, 7, 7), "conv5.conv.weight": (512, 512, 1, 1)}, "OSNet"),
        ({"features.0.weight": (64, 3, 3, 3)}, "no network known here"),
    ],
)
def test_another_network_is_named(tensors: dict[str, tuple[int, ...]], words: str, tmp_path: Path) -> None:
    file = torch_files.torch_zip({name: np.zeros(shape, np.float32) for name, shape in tensors.items()})
    with pytest.raises(InputError, match=rf"other\.pth holds .*{words}(?s:.*)GPEN-BFR-256\.pth"):
        load_restorer(torch_files.save(tmp_path / "other.pth", file))


def test_what_holds_no_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="nowhere"):
        load_restorer(tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match=r"page\.pth is a web page"):
        load_restorer(torch_files.save(tmp_path / "page.pth", b"<!DOCTYPE html><html>"))
    cut = torch_files.torch_zip(drawn(SMALL))[:-500]
    with pytest.raises(InputError, match=r"cut\.pth is a damaged or cut-short"):
        load_restorer(torch_files.save(tmp_path / "cut.pth", cut))


def test_bytes_are_the_network_s_output_rounded_down(small: Restorer, small_faces: np.ndarray) -> None:
    found = np.asarray(restored(small, small.variables, small_faces))
    image, _ = apply(small.variables, jnp.asarray(small_faces / 127.5 - 1, jnp.float32))
    levels = np.clip(np.asarray(image, np.float64) * 0.5 + 0.5, 0, 1) * 255
    assert found.dtype == np.uint8
    assert ((found > 0) & (found < 255)).mean() > 0.2, "nearly everything is clipped: nothing would be compared"
    assert (found <= levels + 1e-3).all()
    assert (found > levels - 1 - 1e-3).all()


def test_a_face_is_restored_alike_in_any_company(small: Restorer, small_faces: np.ndarray) -> None:
    x = jnp.asarray(small_faces / 127.5 - 1, jnp.float32)
    together = np.asarray(apply(small.variables, x)[0])
    alone = [apply(small.variables, x[i : i + 1])[0] for i in range(len(x))]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=TOLERANCE)
    assert np.abs(together[0] - together[1]).max() > 0.1


def test_filters_come_from_the_file(small: Restorer, small_faces: np.ndarray) -> None:
    expected = np.asarray(restored(small, small.variables, small_faces))
    for path in (("encoder_1", "blur"), ("up_1", "conv", "blur"), ("rgb_1", "upsample")):
        buffers = jax.tree.map(np.copy, small.variables["buffers"])
        functools.reduce(lambda tree, part: tree[part], path, buffers)["kernel"][0, 0] += 1.0
        found = np.asarray(restored(small, {**small.variables, "buffers": buffers}, small_faces))
        assert (found != expected).any(), path


def test_half_precision_stays_close(small: Restorer, small_faces: np.ndarray) -> None:
    exact = np.asarray(restored(small, small.variables, small_faces)).astype(int)
    rough = np.asarray(restored(small, small.variables, small_faces, dtype="bfloat16"))
    assert 0 < np.abs(rough - exact).mean() < 4


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (16, 16, 3), (1, 16, 16, 1)])
def test_faces_of_another_size_are_refused(shape: tuple[int, ...], small: Restorer) -> None:
    with pytest.raises(InputError, match="align the faces at 16 pixels"):
        restore(small, small.variables, jnp.zeros(shape, jnp.uint8))


def test_faces_of_another_type_are_refused(small: Restorer) -> None:
    with pytest.raises(InputError, match="float32"):
        restore(small, small.variables, jnp.zeros((1, 16, 16, 3)))


def test_a_batch_split_over_eight_devices_gives_the_same_faces() -> None:
    script = Path(__file__).with_name("device_restored_faces.py")
    code, out, err = runs.finish(runs.start([str(script)], devices=8))
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["rows"] == [2] * 8
    assert found["collectives"] == []
    assert found["spread"] > 10
    assert found["difference"] <= 1  # a value at the edge of two grey levels
    assert found["differing"] < 1e-3
