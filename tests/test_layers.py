"""Layers compute what PyTorch's do, copies run side by side like one by one, masked rows stay out of statistics."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers, layers

GROUPS = (2, 3)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def fast_jit(function: Any) -> Any:
    """Compiles without LLVM's optimisations, which take most of the time for functions that run once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def with_gradients(function: Any, *args: Any) -> tuple[Array, ...]:
    """Returns a function's value and the gradients of its inputs for the cotangent that comes last in `args`."""

    def run(cotangent: Any, *inputs: Any) -> tuple[Array, ...]:
        value, back = jax.vjp(function, *inputs)
        return value, *back(cotangent)

    return fast_jit(run)(args[-1], *args[:-1])


def grouped_convolution(x: Array, kernel: Array) -> Array:
    """The same depthwise convolution by XLA, all groups as channels of one."""
    batch, height, width, channels = x.shape[2:]
    flat = jnp.moveaxis(x, (0, 1), (3, 4)).reshape(batch, height, width, -1)
    taps = jnp.moveaxis(kernel, (0, 1), (2, 3)).reshape(3, 3, 1, -1)
    y = jax.lax.conv_general_dilated(
        flat,
        taps,
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=flat.shape[-1],
    )
    return jnp.moveaxis(y.reshape(batch, height, width, *GROUPS, channels), (3, 4), (0, 1))


@pytest.mark.parametrize("form", layers.DEPTHWISE_FORMS)
def test_depthwise_convolution_and_its_gradients_are_those_of_a_grouped_convolution(x64: None, form: str) -> None:
    x, kernel = normal(0, *GROUPS, 2, 5, 4, 3), normal(1, *GROUPS, 3, 3, 3)
    cotangent = jnp.asarray(normal(2, *x.shape))
    expected = with_gradients(grouped_convolution, x, kernel, cotangent)
    values = with_gradients(lambda x, kernel: layers.depthwise_conv3x3(x, kernel, form), x, kernel, cotangent)
    for ours, theirs in zip(values, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_depthwise_convolution_of_an_unknown_form_is_refused() -> None:
    with pytest.raises(InputError, match=r"train\.depthwise is 'fast'; expected one of auto, padded, shifted, grouped"):
        layers.depthwise_conv3x3(jnp.zeros((1, 2, 2, 1)), jnp.zeros((3, 3, 1)), "fast")


def barriers(function: Any, platform: str, *args: Any) -> int:
    """Returns how many arrays a program keeps apart from the operations that read them."""
    text = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()
    return text.count("optimization_barrier")


@pytest.mark.parametrize(
    ("form", "cpu", "elsewhere"), [("auto", 3, 0), ("padded", 3, 3), ("shifted", 0, 0), ("grouped", 0, 0)]
)
def test_padded_copies_are_kept_on_cpus_only(form: str, cpu: int, elsewhere: int) -> None:
    x, kernel = jnp.zeros((2, 4, 4, 3)), jnp.zeros((3, 3, 3))
    step = jax.value_and_grad(lambda x, kernel: (layers.depthwise_conv3x3(x, kernel, form) ** 2).sum(), (0, 1))
    assert barriers(step, "cpu", x, kernel) == cpu
    for platform in ("tpu", "cuda", "rocm"):
        assert barriers(step, platform, x, kernel) == elsewhere
    pooling = jax.grad(lambda x: layers.max_pool3x3(x).sum())
    assert [barriers(pooling, platform, x) > 0 for platform in ("cpu", "tpu", "cuda")] == [True, False, False]
    images, taps = jnp.zeros((1, 8, 8, 3)), jnp.zeros((7, 7, 3, 4))
    stem = jax.grad(lambda taps: layers.stem_conv7x7(images, taps).sum())
    assert [barriers(stem, platform, taps) > 0 for platform in ("cpu", "tpu", "cuda")] == [True, False, False]


def test_depthwise_convolution_sums_bfloat16_kernel_gradients_in_float32() -> None:
    x = jnp.ones((64, 8, 8, 1), jnp.bfloat16)
    loss = lambda kernel: layers.depthwise_conv3x3(x, kernel).astype(jnp.float32).sum()  # noqa: E731
    grad = fast_jit(jax.grad(loss))(jnp.ones((3, 3, 1), jnp.bfloat16))
    assert grad.dtype == jnp.bfloat16
    assert grad[1, 1, 0] == 64 * 64  # bfloat16 sums of ones stop at 256
    assert grad[0, 1, 0] == 64 * 56


def test_pointwise_convolution_has_a_matrix_and_a_bias_for_every_group(x64: None) -> None:
    x, kernel, bias = normal(0, *GROUPS, 2, 3, 4, 5), normal(1, *GROUPS, 5, 6), normal(2, *GROUPS, 6)
    layer = layers.Pointwise(6, GROUPS, use_bias=True, dtype=jnp.float64)
    computed: Any = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = np.einsum("ijbhwc,ijcd->ijbhwd", x, kernel) + bias[:, :, None, None, None]
    np.testing.assert_allclose(computed, expected, rtol=1e-12, atol=1e-12)


def normalise(
    x: Any, *, train: bool = True, valid: Any = None, stats: Any = None, params: Any = None, **options: Any
) -> tuple[Array, Any]:
    """Runs BatchNorm in float64 from running mean 0 and variance 1; returns output and running statistics."""
    x = jnp.asarray(x)
    layer = layers.BatchNorm(dtype=jnp.float64, **options)
    shape = (*options.get("groups", ()), x.shape[-1])
    params = params or {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}
    stats = stats or {"mean": jnp.zeros(shape), "var": jnp.ones(shape)}
    run = fast_jit(lambda v, x, valid: layer.apply(v, x, train=train, valid=valid, mutable=["batch_stats"]))
    y, moved = run({"params": params, "batch_stats": stats}, x, valid)
    return y, moved["batch_stats"]


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    rows = x.reshape(-1, x.shape[-1])
    return rows.mean(0), rows.var(0), len(rows)


def test_batchnorm_in_training_uses_batch_statistics_and_moves_the_running_ones_by_a_tenth(x64: None) -> None:
    x = 3.0 + 2.0 * normal(0, 4, 3, 2, 5)
    params = {"scale": jnp.arange(1.0, 6.0), "bias": jnp.arange(5.0)}
    y, stats = normalise(x, params=params)
    mean, var, count = moments(x)
    expected = (x - mean) / np.sqrt(var + 1e-5) * np.arange(1.0, 6.0) + np.arange(5.0)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-9)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var * count / (count - 1), rtol=1e-9)


def test_batchnorm_in_evaluation_uses_the_running_statistics_and_does_not_move_them(x64: None) -> None:
    x = normal(0, 4, 3, 2, 5)
    before = {"mean": jnp.arange(5.0), "var": jnp.arange(1.0, 6.0)}
    y, stats = normalise(x, train=False, stats=before)
    np.testing.assert_allclose(y, (x - np.arange(5.0)) / np.sqrt(np.arange(1.0, 6.0) + 1e-5), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(stats["mean"], before["mean"])
    np.testing.assert_array_equal(stats["var"], before["var"])


def test_a_group_that_sees_the_batch_twice_moves_its_statistics_twice(x64: None) -> None:
    x = 3.0 + normal(0, 2, 4, 3, 2, 5)
    _, stats = normalise(x, groups=(2,), passes=(1, 2))
    for group, share in enumerate((0.1, 0.19)):
        mean, var, count = moments(x[group])
        np.testing.assert_allclose(stats["mean"][group], share * mean, rtol=1e-9)
        np.testing.assert_allclose(stats["var"][group], 1 - share + share * var * count / (count - 1), rtol=1e-9)


def test_passes_count_along_the_last_group_axis(x64: None) -> None:
    x = 3.0 + normal(0, 3, 2, 4, 1, 1, 5)
    _, stats = normalise(x, groups=(3, 2), passes=(1, 2))
    means = x.mean((2, 3, 4))
    np.testing.assert_allclose(stats["mean"], means * np.array([0.1, 0.19])[:, None], rtol=1e-9)


def test_calls_one_after_the_other_share_parameters_and_move_the_statistics_in_order(x64: None) -> None:
    x = normal(0, 2, 6, 1, 1, 5) + np.array([1.0, -4.0])[:, None, None, None, None]
    y, stats = normalise(x, calls=2)
    running = {"mean": np.zeros(5), "var": np.ones(5)}
    for call in range(2):
        mean, var, count = moments(x[call])
        np.testing.assert_allclose(y[call], (x[call] - mean) / np.sqrt(var + 1e-5), rtol=1e-9, atol=1e-9)
        running["mean"] = 0.9 * running["mean"] + 0.1 * mean
        running["var"] = 0.9 * running["var"] + 0.1 * var * count / (count - 1)
    np.testing.assert_allclose(stats["mean"], running["mean"], rtol=1e-9)
    np.testing.assert_allclose(stats["var"], running["var"], rtol=1e-9)


def test_masked_rows_leave_output_and_statistics_as_if_they_were_not_there(x64: None) -> None:
    x, valid = normal(0, 2, 5, 3, 2, 4), np.array([True, False, True, True, False])
    x[:, ~valid] = 100.0
    y, stats = normalise(x, groups=(2,), valid=valid)
    subset, subset_stats = normalise(x[:, valid], groups=(2,))
    np.testing.assert_allclose(y[:, valid], subset, rtol=1e-9, atol=1e-9)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), stats, subset_stats)
    everywhere, _ = normalise(x, groups=(2,), valid=np.ones(5, bool))
    np.testing.assert_allclose(everywhere, normalise(x, groups=(2,))[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("calls", [1, 2])
def test_without_a_valid_row_the_running_statistics_stay_and_stand_in_for_the_batchs(x64: None, calls: int) -> None:
    x, nothing = normal(0, *([2] if calls == 2 else []), 4, 3, 2, 5), np.zeros(4, bool)
    before = {"mean": jnp.arange(5.0), "var": jnp.arange(1.0, 6.0)}
    y, stats = normalise(x, valid=nothing, stats=before, calls=calls)
    np.testing.assert_array_equal(stats["mean"], before["mean"])
    np.testing.assert_array_equal(stats["var"], before["var"])
    np.testing.assert_allclose(y, normalise(x, train=False, stats=before)[0], rtol=1e-12)


class Deep(nn.Module):
    """As many convolutions with BatchNorm as a stream has one after the other."""

    @nn.compact
    def __call__(self, x: Array, valid: Array) -> Array:
        for _ in range(30):
            x = nn.relu(layers.BatchNorm()(layers.Pointwise(8)(x), train=True, valid=valid))
        return x


@pytest.mark.parametrize("rows", [0, 1])
def test_thirty_layers_on_a_batch_with_hardly_a_valid_row_stay_finite(rows: int) -> None:
    x, valid = jnp.asarray(normal(0, 4, 2, 2, 8), jnp.float32), jnp.arange(4) < rows
    module = Deep()
    variables = initialisers.draw(lambda key: module.init(key, x, valid), 0)

    def loss(params: Any) -> Array:
        y, _ = module.apply({**variables, "params": params}, x, valid, mutable=["batch_stats"])
        return jnp.where(valid[:, None, None, None], y, 0.0).sum()

    value, grads = fast_jit(jax.value_and_grad(loss))(variables["params"])
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_bias_gets_no_gradient_and_still_counts_in_the_output(frozen: bool) -> None:
    x, stats = jnp.asarray(normal(0, 4, 1, 1, 3), jnp.float32), {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    layer = layers.BatchNorm(frozen_bias=frozen)

    def output(params: Any) -> Any:
        return layer.apply({"params": params, "batch_stats": stats}, x, train=False)

    params = {"scale": jnp.ones(3), "bias": jnp.full(3, 2.0)}
    grads = jax.grad(lambda p: (output(p) ** 2).sum())(params)
    assert ((grads["bias"] == 0) == frozen).all()
    assert (grads["scale"] != 0).all()
    np.testing.assert_allclose(output(params), x + 2.0, rtol=1e-4, atol=1e-4)


def test_bfloat16_batchnorm_keeps_its_statistics_in_float32() -> None:
    # Around 1000 a bfloat16 knows multiples of 4 only: moments in bfloat16 could not tell these rows apart from noise.
    x = jnp.asarray([1000.0, 1004.0] * 32, jnp.bfloat16).reshape(64, 1, 1, 1)
    layer = layers.BatchNorm(dtype=jnp.bfloat16)
    variables = initialisers.draw(lambda key: layer.init(key, x, train=False), 0)
    y, moved = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert moved["batch_stats"]["mean"].dtype == moved["batch_stats"]["var"].dtype == jnp.float32
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 100.2, rtol=1e-6)


def test_instance_norm_takes_statistics_of_each_image_and_channel(x64: None) -> None:
    x, scale, bias = 2.0 + normal(0, 3, 4, 5, 2), normal(1, 2), normal(2, 2)
    computed: Any = layers.InstanceNorm(dtype=jnp.float64).apply({"params": {"scale": scale, "bias": bias}}, x)
    for image in range(3):
        for channel in range(2):
            plane = x[image, :, :, channel]
            expected = (plane - plane.mean()) / np.sqrt(plane.var() + 1e-5) * scale[channel] + bias[channel]
            np.testing.assert_allclose(computed[image, :, :, channel], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (8, 5), (1, 2)])
def test_max_pooling_and_its_gradient_are_those_of_a_window(x64: None, size: tuple[int, int]) -> None:
    x = jnp.asarray(normal(0, 2, *size, 3))
    windowed = lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # noqa: E731
    cotangent = normal(1, 2, -(-size[0] // 2), -(-size[1] // 2), 3)
    expected, expected_gradient = with_gradients(windowed, x, cotangent)
    computed, gradient = with_gradients(layers.max_pool3x3, x, cotangent)
    np.testing.assert_array_equal(computed, expected)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-12)


def test_the_gradient_of_a_global_maximum_goes_only_to_its_first_place() -> None:
    x = jnp.asarray([[[3.0, 1.0], [7.0, 7.0]], [[-5.0, -1.0], [-1.0, -9.0]]])[..., None]
    np.testing.assert_array_equal(layers.global_max(x), [[7.0], [-1.0]])
    grad = jax.grad(lambda x: (layers.global_max(x)[:, 0] * jnp.asarray([2.0, 3.0])).sum())(x)
    np.testing.assert_array_equal(grad[..., 0], [[[0, 0], [2, 0]], [[0, 3], [0, 0]]])


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (2, 3)])
def test_average_pooling_leaves_out_an_odd_last_row_and_column(x64: None, size: tuple[int, int]) -> None:
    x = jnp.asarray(normal(0, 2, *size, 3))
    np.testing.assert_allclose(layers.avg_pool2x2(x), nn.avg_pool(x, (2, 2), (2, 2)), rtol=1e-12)
    np.testing.assert_allclose(layers.avg_pool2x2(x[None])[0], layers.avg_pool2x2(x))
    cotangent = jnp.asarray(normal(1, 2, size[0] // 2, size[1] // 2, 3))
    _, expected = with_gradients(lambda x: nn.avg_pool(x, (2, 2), (2, 2)), x, cotangent)
    np.testing.assert_allclose(with_gradients(layers.avg_pool2x2, x, cotangent)[1], expected, rtol=1e-12)


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (6, 9), (2, 2)])
def test_the_gradients_of_the_stem_are_those_of_the_convolution(x64: None, size: tuple[int, int]) -> None:
    x, kernel = jnp.asarray(normal(0, 3, *size, 2)), jnp.asarray(normal(1, 7, 7, 2, 5))
    cotangent = jnp.asarray(normal(2, 3, -(-size[0] // 2), -(-size[1] // 2), 5))

    def convolution(x: Any, kernel: Any) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), ((3, 3), (3, 3)), dimension_numbers=layout)

    expected = jax.vjp(convolution, x, kernel)[1](cotangent)
    for computed, right in zip(jax.vjp(layers.stem_conv7x7, x, kernel)[1](cotangent), expected, strict=True):
        np.testing.assert_allclose(computed, right, rtol=1e-9, atol=1e-12)


def test_the_stem_pads_three_pixels_and_halves_both_sides(x64: None) -> None:
    x, kernel = normal(0, 1, 9, 6, 2), normal(1, 7, 7, 2, 4)
    computed: Any = layers.StemConv(4, dtype=jnp.float64).apply({"params": {"kernel": kernel}}, x)
    padded = np.pad(x[0], ((3, 3), (3, 3), (0, 0)))
    assert computed.shape == (1, 5, 3, 4)
    for i in range(5):
        for j in range(3):
            window = padded[2 * i : 2 * i + 7, 2 * j : 2 * j + 7]
            np.testing.assert_allclose(computed[0, i, j], np.einsum("ijc,ijcd->d", window, kernel), rtol=1e-9)


def test_average_pooling_3x3_counts_the_zeros_of_the_border() -> None:
    x = normal(0, 2, 4, 3, 2)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(padded[:, i : i + 4, j : j + 3] for i in range(3) for j in range(3)) / 9
    np.testing.assert_allclose(layers.avg_pool3x3(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)
