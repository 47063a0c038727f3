"""Layers with PyTorch's numerics that run several independent copies of themselves as one operation.

A layer with `groups=(3, 4)` holds twelve copies of its parameters, stacked on leading axes, and maps
`[3, 4, batch, height, width, channels]` to the same leading axes. The four streams of an OSBlock and the three
branches of LightMBN run that way: fewer, larger operations compile faster and keep the cores busy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.errors import InputError
from deskpro_jax.models.initialisers import Initialiser, constant, kaiming_fan_out

Dtype = jnp.dtype | str

BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.1


def at_least_float32(dtype: Dtype) -> jnp.dtype:
    """Returns the type for statistics and losses: float32, or float64 where the input already is."""
    return jnp.promote_types(dtype, jnp.float32)


class Pointwise(nn.Module):
    """1x1 convolution: one matrix product per group."""

    features: int
    groups: tuple[int, ...] = ()
    use_bias: bool = False
    dtype: Dtype = jnp.float32
    kernel_init: Initialiser | None = None
    bias_init: Initialiser = constant(0.0)

    @nn.compact
    def __call__(self, x: Float[Array, "*groups batch height width channels"]) -> Array:
        channels = x.shape[-1]
        init = self.kernel_init or kaiming_fan_out(self.features)
        kernel = self.param("kernel", init, (*self.groups, channels, self.features))
        *lead, batch, height, width, _ = x.shape
        y = jnp.matmul(x.astype(self.dtype).reshape(*lead, -1, channels), kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (*self.groups, self.features))
            y = y + bias.astype(self.dtype)[..., None, :]
        return y.reshape(*y.shape[:-2], batch, height, width, self.features)


def _apart(x: Array) -> Array:
    """Keeps `x` as an array of its own on CPUs; elsewhere the compiler may compute it where it is read.

    Fused into the shifted products of a convolution, padding turns every load of a CPU into a bounds check and nine
    contiguous reads into scalar code (27 ms against 3 ms at [4, 8, 96, 32, 64] on two cores). Compiled for a TPU, an
    OSBlock that keeps the padded copies moves 1.5 times the bytes.
    """
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)


# Form of the depthwise convolution -> what becomes of the padded copy that its nine shifted products read.
_PADDED: dict[str, Callable[[Array], Array]] = {
    "auto": _apart,
    "padded": jax.lax.optimization_barrier,
    "shifted": lambda x: x,
}
DEPTHWISE_FORMS = (*_PADDED, "grouped")


def _pad_borders(x: Array, form: str) -> Array:
    """Adds one row and column of zeros on every side."""
    pad = [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
    return _PADDED[form](jnp.pad(x, pad))


def _shifted(padded: Array) -> list[Array]:
    height, width = padded.shape[-3] - 2, padded.shape[-2] - 2
    return [padded[..., i : i + height, j : j + width, :] for i in range(3) for j in range(3)]


@jax.jit  # as the other functions that run in every block: traced and lowered once for each shape
def _shift_and_add(padded: Array, kernel: Array) -> Array:
    taps = kernel.reshape(*kernel.shape[:-3], 9, kernel.shape[-1])
    return functools.reduce(
        jnp.add, [window * taps[..., tap, :][..., None, None, None, :] for tap, window in enumerate(_shifted(padded))]
    )


def depthwise_conv3x3(
    x: Float[Array, "*groups batch height width channels"],
    kernel: Float[Array, "*groups 3 3 channels"],
    form: str = "auto",
) -> Float[Array, "*groups batch height width channels"]:
    """Convolves every channel with its own 3x3 kernel, stride 1, zero padding 1.

    Args:
        x: images or feature maps.
        kernel: one 3x3 kernel for each group and channel, in the type of `x`.
        form: how it is computed, with the same result but for rounding. "grouped" is XLA's own grouped convolution, an
            order of magnitude slower on CPUs. The others are nine shifted multiply-adds, which read a padded copy
            ("padded"), or pad as they read ("shifted"); "auto" is "padded" on CPUs and "shifted" elsewhere.

    Returns:
        Feature maps of the shape and type of `x`.

    Raises:
        InputError: there is no such form.
    """
    if form not in DEPTHWISE_FORMS:
        raise InputError(f"train.depthwise is {form!r}; expected one of {', '.join(DEPTHWISE_FORMS)}.")
    return _grouped_conv(x, kernel) if form == "grouped" else _shifted_conv(x, kernel, form)


def _grouped_conv(x: Array, kernel: Array) -> Array:
    if x.ndim > 4:
        return jax.vmap(_grouped_conv)(x, kernel)
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted_conv(x: Array, kernel: Array, form: str) -> Array:
    return _shift_and_add(_pad_borders(x, form), kernel)


def _shifted_forward(x: Array, kernel: Array, form: str) -> tuple[Array, tuple[Array, Array]]:
    return _shifted_conv(x, kernel, form), (x, kernel)


@functools.partial(jax.jit, static_argnums=0)
def _shifted_backward(form: str, residuals: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    # From the padded copy, `grad` is read by both sums and not computed anew for each out of what it came from.
    padded = _pad_borders(grad, form)
    grad = padded[..., 1:-1, 1:-1, :]
    grad_x = _shift_and_add(padded, kernel[..., ::-1, ::-1, :])
    # All nine sums in one pass over height and width; summing over the batch apart keeps the one-pass reduction
    # local to a device when the batch is sharded.
    total = at_least_float32(x.dtype)
    products = [window.astype(total) * grad.astype(total) for window in _shifted(_pad_borders(x, form))]
    sums = jax.lax.reduce(
        products,
        [jnp.zeros((), total)] * 9,
        lambda left, right: [a + b for a, b in zip(left, right, strict=True)],
        (x.ndim - 3, x.ndim - 2),
    )
    grad_kernel = jnp.stack(sums, axis=-2).sum(axis=-3).reshape(kernel.shape)
    return grad_x, grad_kernel.astype(kernel.dtype)


_shifted_conv.defvjp(_shifted_forward, _shifted_backward)


class Depthwise3x3(nn.Module):
    """Depthwise 3x3 convolution without bias."""

    groups: tuple[int, ...] = ()
    dtype: Dtype = jnp.float32
    form: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "*groups batch height width channels"]) -> Array:
        channels = x.shape[-1]
        kernel = self.param("kernel", kaiming_fan_out(9 * channels), (*self.groups, 3, 3, channels))
        return depthwise_conv3x3(x.astype(self.dtype), kernel.astype(self.dtype), self.form)


def _stem_conv(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, window_strides=(2, 2), padding=((3, 3), (3, 3)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def stem_conv7x7(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "7 7 channels features"]
) -> Float[Array, "batch half_height half_width features"]:
    """Convolves with a 7x7 kernel, stride 2, zero padding 3.

    Args:
        x: images.
        kernel: in the type of `x`.

    Returns:
        Feature maps of half the height and width, in the type of `x`.
    """
    return _stem_conv(x, kernel)


def _stem_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _stem_conv(x, kernel), (x, kernel)


def _stem_backward(residuals: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    _, to_images = jax.vjp(lambda images: _stem_conv(images, kernel), x)  # left out of programs that do not use it
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    by_patches = _stem_kernel_grad_by_patches if even else _stem_kernel_grad
    # XLA's CPU code for this gradient is a convolution with a window of the whole image, ten times slower than
    # products; those of other platforms have kernels for it.
    grad_kernel = jax.lax.platform_dependent(x, grad, cpu=by_patches, default=_stem_kernel_grad)
    return to_images(grad)[0], grad_kernel


def _stem_kernel_grad(x: Array, grad: Array) -> Array:
    kernel = jnp.zeros((7, 7, x.shape[-1], grad.shape[-1]), x.dtype)
    return jax.vjp(lambda weights: _stem_conv(x, weights), kernel)[1](grad)[0]


def _stem_kernel_grad_by_patches(x: Array, grad: Array) -> Array:
    """The gradient as four matrix products.

    Each 2x2 square of pixels becomes one pixel of four times the channels, which makes the convolution one of 4x4 with
    stride 1; its four columns are laid side by side, and each of its rows is one product.
    """
    batch, height, width, channels = x.shape
    rows, columns, features = height // 2, width // 2, grad.shape[-1]
    padded = jnp.pad(x, ((0, 0), (4, 2), (4, 2), (0, 0)))  # one more than the convolution in front: 8 taps, not 7
    squares = padded.reshape(batch, rows + 3, 2, columns + 3, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    squares = jax.lax.optimization_barrier(squares.reshape(batch, rows + 3, columns + 3, 4 * channels))
    beside = jnp.concatenate([squares[:, :, i : i + columns] for i in range(4)], -1)
    beside = jax.lax.optimization_barrier(beside)
    taps = jnp.stack([jnp.einsum("bhwc,bhwf->cf", beside[:, i : i + rows], grad) for i in range(4)])
    taps = taps.reshape(4, 4, 2, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return taps.reshape(8, 8, channels, features)[1:, 1:]


stem_conv7x7.defvjp(_stem_forward, _stem_backward)


class StemConv(nn.Module):
    """7x7 convolution, stride 2, zero padding 3, without bias."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        kernel = self.param("kernel", kaiming_fan_out(49 * self.features), (7, 7, x.shape[-1], self.features))
        return stem_conv7x7(x.astype(self.dtype), kernel.astype(self.dtype))


class BatchNorm(nn.Module):
    """Batch normalisation as PyTorch computes it: eps 1e-5, momentum 0.1, unbiased running variance.

    Statistics are those of the whole batch, also when it is sharded over devices, and optionally of its valid
    rows only. `passes` is how often each group sees the batch in one step, since the released code's `aacd`
    blocks run their first stream twice and so move its running statistics twice. `calls > 1` is one module
    applied to that many inputs one after the other: the inputs lie on a leading axis and share all parameters.
    `frozen_bias` keeps the bias at its initial zero (a BNNeck). `eps` is added to the variance.
    """

    groups: tuple[int, ...] = ()
    passes: tuple[int, ...] | None = None
    calls: int = 1
    frozen_bias: bool = False
    dtype: Dtype = jnp.float32
    eps: float = BATCH_NORM_EPS
    scale_init: Initialiser = constant(1.0)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*groups batch height width channels"],
        *,
        train: bool,
        valid: Array | None = None,
    ) -> Array:
        shape = (*self.groups, x.shape[-1])
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", constant(0.0), shape)
        if self.frozen_bias:
            bias = jax.lax.stop_gradient(bias)
        float_type = jnp.result_type(float)
        running_mean = self.variable("batch_stats", "mean", constant(0.0), None, shape, float_type)
        running_var = self.variable("batch_stats", "var", constant(1.0), None, shape, float_type)
        running = running_mean.value, running_var.value
        if not train:
            return _normalised(x, scale, bias, *running, self.dtype, self.eps)
        form = self.passes, self.calls, self.dtype, self.eps
        y, *moved = _batch_normalised(x, valid, scale, bias, *running, *form)
        if not self.is_initializing():
            running_mean.value, running_var.value = moved
        return y


@functools.partial(jax.jit, static_argnames=("dtype", "eps"))
def _normalised(x: Array, scale: Array, bias: Array, mean: Array, var: Array, dtype: Dtype, eps: float) -> Array:
    """Scale and shift are folded into one multiply-add over the feature map."""
    stats = at_least_float32(x.dtype)
    factor = scale.astype(stats) * jax.lax.rsqrt(var.astype(stats) + eps)
    shift = bias.astype(stats) - mean.astype(stats) * factor
    y = x.astype(stats) * factor[..., None, None, None, :] + shift[..., None, None, None, :]
    return y.astype(dtype)


@functools.partial(jax.jit, static_argnames=("passes", "calls", "dtype", "eps"))
def _batch_normalised(
    x: Array,
    valid: Array | None,
    scale: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    passes: tuple[int, ...] | None,
    calls: int,
    dtype: Dtype,
    eps: float,
) -> tuple[Array, Array, Array]:
    """Returns `x` normalised by its own statistics, and the running statistics after it."""
    mean, var, count = _batch_moments(x.astype(at_least_float32(x.dtype)), valid)
    if valid is not None:  # without one valid row a variance of 0 would amplify 316-fold in every layer
        mean = jnp.where(count > 0, mean, running_mean)
        var = jnp.where(count > 0, var, running_var)
    unbiased = var * (count / jnp.maximum(count - 1, 1))
    after = []
    for old, new in ((running_mean, mean), (running_var, unbiased)):
        moved = jnp.where(count > 0, _move(old, new, passes, calls), old)  # without a valid row they stay
        after.append(moved.astype(old.dtype))
    return _normalised(x, scale, bias, mean, var, dtype, eps), after[0], after[1]


def _move(running: Array, batch: Array, passes: tuple[int, ...] | None, calls: int) -> Array:
    if calls > 1:
        for call in range(calls):
            running = running + BATCH_NORM_MOMENTUM * (batch[call] - running)
        return running
    if passes is None:
        return running + BATCH_NORM_MOMENTUM * (batch - running)
    fraction = 1.0 - (1.0 - BATCH_NORM_MOMENTUM) ** jnp.asarray(passes, running.dtype)
    return running + fraction[:, None] * (batch - running)


def _batch_moments(x: Array, valid: Array | None) -> tuple[Array, Array, Array]:
    """Returns mean, biased variance and count over batch, height and width; E[x^2] - E[x]^2 is one pass over x."""
    height, width = x.shape[-3], x.shape[-2]
    axes = (x.ndim - 4, x.ndim - 3, x.ndim - 2)
    if valid is None:
        count = jnp.asarray(x.shape[-4] * height * width, x.dtype)
        mean, square = x.mean(axes), (x * x).mean(axes)
    else:
        weight = valid.astype(x.dtype)[:, None, None, None]
        count = weight.sum() * height * width
        mean = (x * weight).sum(axes) / jnp.maximum(count, 1)
        square = (x * x * weight).sum(axes) / jnp.maximum(count, 1)
    return mean, jnp.maximum(square - mean * mean, 0.0), count


class InstanceNorm(nn.Module):
    """Instance normalisation with learned scale and shift: statistics of each image and channel, eps 1e-5."""

    groups: tuple[int, ...] = ()
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*groups batch height width channels"]) -> Array:
        stats = at_least_float32(x.dtype)
        scale = self.param("scale", constant(1.0), (*self.groups, x.shape[-1]))[..., None, None, None, :]
        bias = self.param("bias", constant(0.0), (*self.groups, x.shape[-1]))[..., None, None, None, :]
        x = x.astype(stats)
        centred = x - x.mean((-3, -2), keepdims=True)
        y = centred * jax.lax.rsqrt((centred**2).mean((-3, -2), keepdims=True) + BATCH_NORM_EPS)
        return (y * scale + bias).astype(self.dtype)


def max_pool3x3(x: Float[Array, "batch height width channels"]) -> Array:
    """Max pooling 3x3, stride 2, padding 1 (PyTorch), as maxima of shifted slices: fast backward without windows."""
    pad = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    pad = _apart(pad)
    height, width = x.shape[1], x.shape[2]
    rows = jnp.maximum(pad[:, 0:height:2], pad[:, 1 : height + 1 : 2])
    rows = jnp.maximum(rows, pad[:, 2 : height + 2 : 2])
    columns = jnp.maximum(rows[:, :, 0:width:2], rows[:, :, 1 : width + 1 : 2])
    return jnp.maximum(columns, rows[:, :, 2 : width + 2 : 2])


def avg_pool3x3(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    """Average pooling 3x3, stride 1, padding 1, counting the border's zeros (PyTorch), as sums of shifted slices."""
    height, width = x.shape[1], x.shape[2]
    pad = _apart(jnp.pad(x.astype(at_least_float32(x.dtype)), ((0, 0), (1, 1), (1, 1), (0, 0))))
    rows = pad[:, :height] + pad[:, 1 : height + 1] + pad[:, 2 : height + 2]
    total = rows[:, :, :width] + rows[:, :, 1 : width + 1] + rows[:, :, 2 : width + 2]
    return (total * (1 / 9)).astype(x.dtype)


def global_max(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch channels"]:
    """Largest value of each map; its gradient goes only to the first of them, as in PyTorch.

    Chosen by position: the gradient of `jnp.max` compares values, and where the compiler computes them a second time,
    rounded otherwise, none compares equal and the gradient is 0 / 0.
    """
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    chosen = jnp.arange(flat.shape[1])[:, None] == jnp.argmax(flat, axis=1)[:, None]
    return jnp.where(chosen, flat, 0).sum(1)


@jax.custom_vjp
def avg_pool2x2(x: Float[Array, "*groups batch height width channels"]) -> Array:
    """Average pooling 2x2, stride 2; an odd last row or column is left out, as in PyTorch.

    The sum of four shifted slices: as a reduction, XLA's CPU code joins it with the products before it, at half their
    speed.
    """
    height, width = x.shape[-3] // 2 * 2, x.shape[-2] // 2 * 2
    total = at_least_float32(x.dtype)
    corners = [x[..., i:height:2, j:width:2, :].astype(total) for i in range(2) for j in range(2)]
    return (functools.reduce(jnp.add, corners) * 0.25).astype(x.dtype)


def _avg_pool_forward(x: Array) -> tuple[Array, Array]:
    return avg_pool2x2(x), x[..., :0]  # of the input only its shape is needed


def _avg_pool_backward(empty: Array, grad: Array) -> tuple[Array]:
    *lead, height, width, _ = empty.shape
    rows, columns, channels = grad.shape[-3:]
    shared = jnp.broadcast_to((grad * 0.25)[..., :, None, :, None, :], (*lead, rows, 2, columns, 2, channels)).reshape(
        *lead, rows * 2, columns * 2, channels
    )
    pad = [(0, 0)] * len(lead) + [(0, height - rows * 2), (0, width - columns * 2), (0, 0)]
    return (jnp.pad(shared, pad),)


avg_pool2x2.defvjp(_avg_pool_forward, _avg_pool_backward)
