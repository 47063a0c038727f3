"""SCHP computes what the published network does, from its file to its logits.

Golden cases come from tests/golden/data_prep, or from the folder `data_prep` in the one that DESKPRO_GOLDEN names.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data_prep_golden as golden
import runs
from data_prep.parsing import interpolation, layers, load, model, names, parse
from data_prep.parsing.model import SCHP
from deskpro_jax.data.schema import ATR, LIP, PASCAL
from deskpro_jax.errors import InputError, MissingInputError
from torch_files import Pickled, save, tensor_opcodes, torch_zip, zip_bytes

VARIANTS = {"lip": (LIP, 473), "atr": (ATR, 512), "pascal": (PASCAL, 512)}
STATISTICS = ("maxpool", "layer1", "layer2", "layer3", "layer4", "psp")
TOLERANCE = 2e-4  # of logits of up to 10, after a hundred convolutions in float32


def fast_jit(function: Callable[..., Any]) -> Any:
    """Compiles without LLVM's optimisations, which take most of the time for a function that runs once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


# The network


def network_cases() -> list[Any]:
    found = [
        pytest.param(path.name, key.removesuffix("_fusion_logits"), id=f"{path.stem}-{key.split('_')[0]}")
        for path in sorted(golden.FOLDER.glob("schp_*.npz"))
        for key in np.load(path).files
        if key.endswith("_fusion_logits")
    ]
    skip = pytest.mark.skip(reason=f"{golden.FOLDER} holds no outputs of SCHP")
    return found or [pytest.param("", "", id="none", marks=skip)]


@functools.cache
def golden_network(file: str) -> tuple[Any, Any, dict[str, np.ndarray], dict[str, Any]]:
    """Returns the jitted network of a golden file, its variables, the file's arrays and its `meta`."""
    data, meta = golden.arrays(file)
    shapes = golden.manifest(file.replace(".npz", "_manifest.json"))
    tensors = golden.state_dict(shapes, "schp", meta.get("weights_seed", golden.WEIGHTS_SEED))
    classes = dict(shapes)["fushion.3.weight"][0]
    return fast_jit(SCHP(classes).apply), load.fill(tensors, classes), data, meta


def input_size(logits: np.ndarray, enlarged: np.ndarray) -> tuple[int, int]:
    """Returns height and width of the input, of which the logits say a quarter and every fourth pixel the rest."""

    def difference(size: tuple[int, int]) -> float:
        rows, columns = (interpolation.aligned_resize(n, m)[::4] for n, m in zip(logits.shape, size, strict=True))
        return float(np.abs(rows @ logits @ columns.T - enlarged).max())

    return min(itertools.product(*(range(4 * n - 3, 4 * n + 1) for n in logits.shape)), key=difference)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "case"), network_cases())
def test_the_logits_and_what_lies_before_them_are_those_of_the_published_network(file: str, case: str) -> None:
    apply, variables, data, meta = golden_network(file)
    expected = {key.removeprefix(f"{case}_"): value for key, value in data.items() if key.startswith(f"{case}_")}
    height, width = input_size(expected["fusion_logits"][0, 0], expected["upsampled_sub4"][0, 0])
    image = golden.image(height, width, meta.get("input_seed", golden.INPUT_SEED))
    fusion, maps = apply(variables, jnp.asarray((image - model.MEAN) / model.STD, jnp.float32))
    for name, found in {"fusion": fusion, "parsing": maps["parsing"], "edge": maps["edge"]}.items():
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(
            found.transpose(0, 3, 1, 2), expected[f"{name}_logits"], rtol=0, atol=TOLERANCE, err_msg=name
        )
    enlarged = interpolation.resize(fusion, height, width)[:, ::4, ::4].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(enlarged, expected["upsampled_sub4"], rtol=0, atol=TOLERANCE)
    for name in STATISTICS:
        values = np.asarray(maps[name], np.float64)
        found = [values.mean(), values.std(ddof=1), np.abs(values).max()]
        np.testing.assert_allclose(found, expected[f"stat_{name}"], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(("case", "activation"), [("none", layers.linear), ("leaky_relu", layers.leaky_relu)])
def test_the_norm_scales_by_the_size_of_its_weight_and_never_by_zero(case: str, activation: layers.Activation) -> None:
    data, _ = golden.arrays("schp_lip.npz")
    variables = {
        "params": {"scale": data["abn_weight"], "bias": data["abn_bias"]},
        "batch_stats": {"mean": data["abn_mean"], "var": data["abn_var"]},
    }
    found = layers.Norm(activation).apply(variables, data["abn_x"].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), data[f"abn_{case}"], rtol=1e-6, atol=1e-6)


def test_crops_are_normalised_as_blue_green_red() -> None:
    found = np.asarray(model.normalise(jnp.asarray([[[[255, 0, 51]]]], jnp.uint8)))[0, 0, 0]
    np.testing.assert_allclose(found, [(0.2 - 0.406) / 0.225, -0.456 / 0.224, (1 - 0.485) / 0.229], rtol=1e-6)


def test_one_convolution_of_several_maps_is_that_of_all_enlarged_and_side_by_side() -> None:
    rng = np.random.default_rng(0)
    small, large = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 4, 5), (2, 9, 11, 2)))
    variables = {"params": {"kernel": rng.standard_normal((7, 6)).astype(np.float32), "bias": np.arange(6.0)}}
    together = np.concatenate([interpolation.resize(jnp.asarray(small), 9, 11), large], -1)
    expected = together @ variables["params"]["kernel"] + variables["params"]["bias"]
    found = layers.Conv1x1(6, use_bias=True).apply(variables, small, large)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(7, 10), (2, 1)])
def test_the_pyramid_is_a_convolution_of_enlarged_averages_beside_the_map(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "PYRAMID", 4)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, height, width, 5)).astype(np.float32)
    pyramid = model.PyramidPooling()
    shapes = jax.eval_shape(pyramid.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 1.0, leaf.shape).astype(np.float32), shapes)

    def step_by_step(variables: Any, x: Any) -> Any:
        within = lambda name: {collection: tree[name] for collection, tree in variables.items()}  # noqa: E731
        beside = []
        for i, bins in enumerate(model.BINS):
            rows, columns = (interpolation.adaptive_mean(size, bins).astype(np.float32) for size in (height, width))
            pooled = model.ConvNorm(4).apply(within(f"stage{i}"), jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns))
            beside.append(interpolation.resize(pooled, height, width))
        y = layers.conv3x3(jnp.concatenate([*beside, x], -1), variables["params"]["kernel"], 1, 1, jnp.float32)
        return layers.Norm(layers.leaky_relu).apply(within("norm"), y)

    found, expected = fast_jit(lambda *args: (pyramid.apply(*args), step_by_step(*args)))(variables, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_resizing_puts_corners_on_corners_and_averages_take_every_pixel_they_touch() -> None:
    np.testing.assert_allclose(interpolation.aligned_resize(2, 5) @ [0.0, 8.0], [0, 2, 4, 6, 8])
    np.testing.assert_allclose(interpolation.aligned_resize(5, 2) @ np.arange(5.0), [0, 4])
    np.testing.assert_allclose(interpolation.aligned_resize(1, 3) @ [7.0], [7, 7, 7])
    np.testing.assert_allclose(interpolation.aligned_resize(4, 1) @ np.arange(4.0), [0])
    np.testing.assert_allclose(interpolation.adaptive_mean(5, 3) @ np.arange(5.0), [0.5, 2, 3.5])
    np.testing.assert_allclose(interpolation.adaptive_mean(2, 3) @ [0.0, 1.0], [0, 0.5, 1])


@pytest.mark.parametrize("crops", [np.zeros((1, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8)])
def test_crops_that_are_no_batch_of_bytes_are_refused(crops: np.ndarray) -> None:
    with pytest.raises(InputError, match=re.escape(f"{crops.dtype} {crops.shape}")):
        parse.parse_logits(load.Parser(LIP, 473, {}, ""), {}, jnp.asarray(crops))


def test_a_batch_split_over_eight_devices_gives_the_same_logits() -> None:
    script = Path(__file__).with_name("device_parsing.py")
    code, out, err = runs.finish(runs.start([str(script)], devices=8))
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["rows"] == [2] * 8
    assert found["collectives"] == []
    assert found["deviation"] > 1e-3 * found["largest"]
    assert found["difference"] < 1e-5 * found["largest"]


# The files


def official(variant: str) -> list[tuple[str, tuple[int, ...]]]:
    return golden.manifest(f"schp_{variant}_manifest.json")


def small_file(path: Path, shapes: list[tuple[str, tuple[int, ...]]], prefix: str = "module.") -> np.ndarray:
    """Writes a file whose tensors all begin with the same numbers, so that it is small; returns these numbers."""
    largest = max(int(np.prod(shape)) for _, shape in shapes)
    numbers = (np.arange(largest) % 1021 / 1024 + 0.25).astype(np.float16)
    tensors: dict[str, Any] = {}
    for name, shape in shapes:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
        tensors[prefix + name] = tensor_opcodes("0", "HalfStorage", largest, 0, shape, strides)
    pickled = Pickled({"state_dict": tensors, "epoch": 149})
    save(path, zip_bytes(pickled.data, {"0": numbers.tobytes()}))
    return numbers


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_official_file_is_known_by_its_classes_and_all_of_it_finds_its_place(variant: str, tmp_path: Path) -> None:
    shapes = official(variant)
    path = tmp_path / "exp-schp.pth"
    numbers = small_file(path, shapes)
    parser = load.load_parser(path)
    scheme, size = VARIANTS[variant]
    assert (parser.scheme, parser.size) == (scheme, size)
    assert parser.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    leaves = jax.tree.leaves(parser.variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    assert sum(leaf.size for leaf in leaves) == sum(int(np.prod(shape)) for _, shape in shapes)
    last = parser.variables["params"]["classifier"]["kernel"]
    count = len(scheme.labels)
    np.testing.assert_array_equal(last, numbers[: 256 * count].reshape(count, 256).T)


def test_the_name_table_has_every_official_name_once() -> None:
    table = [entry.name for entry in names.schp()]
    for variant in VARIANTS:
        assert sorted(table) == sorted(name for name, _ in official(variant))


def constant(shapes: list[tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Returns a state dict that takes no memory."""
    return {name: np.broadcast_to(np.float32(0.5), shape) for name, shape in shapes}


def without(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tensors.items() if name != "layer3.22.bn2.running_var"}


NOT_FINITE = np.asarray([1.0, np.nan] * 32, np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without, "layer3.22.bn2.running_var: not in the file"),
        (lambda t: t | {"extra.weight": np.zeros(3)}, "extra.weight: shape (3,), the model has no such tensor"),
        (lambda t: t | {"bn1.bias": np.zeros(65, np.float32)}, "bn1.bias: shape (65,), the model has (64,)"),
        (lambda t: t | {"bn1.bias": np.zeros(64, np.int64)}, "bn1.bias: type int64"),
        (lambda t: t | {"bn1.bias": NOT_FINITE}, "bn1.bias: holds values that are not finite"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: Callable[..., Mapping[str, np.ndarray]], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        load.fill(change(constant(official("lip"))), 20)


OTHERS = {
    "detector": ({"module.ClassHead.0.conv1x1.weight": (4, 64, 1, 1)}, "RetinaFace"),
    "restorer": ({"generator.style.1.weight": (8, 8), "ecd6.0.1.weight": (8, 8, 3, 3)}, "GPEN"),
    "re-identification": (
        {f"nocloth_net.backbone.{end}": (4, 4, 1, 1) for end in ("0.conv.weight", "3.conv1.conv.weight")},
        "DeSKPro",
    ),
    "other classes": ({"module.fushion.3.weight": (59, 256, 1, 1)}, "59 classes"),
    "anything": ({"a": (2, 3)}, "no network known here"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_network_is_named_as_what_it_holds(kind: str, tmp_path: Path) -> None:
    shapes, words = OTHERS[kind]
    path = tmp_path / "other.pth"
    save(path, torch_zip({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}))
    with pytest.raises(InputError) as error:
        load.load_parser(path)
    for word in (str(path), words, "expected an SCHP parser", "20 (lip), 18 (atr), 7 (pascal)"):
        assert word in str(error.value)


def test_a_parser_that_lacks_a_tensor_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    save(path, torch_zip({"module.fushion.3.weight": np.zeros((18, 256, 1, 1), np.float32)}))
    with pytest.raises(InputError) as error:
        load.load_parser(path)
    for word in (str(path), "18 classes, ATR", "conv1.weight: not in the file", "602 tensors"):
        assert word in str(error.value)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.pth"
    page.write_text("<!DOCTYPE html><html>sign in</html>")
    with pytest.raises(InputError, match="web page"):
        load.load_parser(page)
    with pytest.raises(MissingInputError, match=re.escape("absent.pth")):
        load.load_parser(tmp_path / "absent.pth")
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    small_file(whole, official("pascal")[:40])
    cut.write_bytes(whole.read_bytes()[:-4000])
    with pytest.raises(InputError, match=re.escape(str(cut))):
        load.load_parser(cut)
