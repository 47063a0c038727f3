"""Operations of jax as nodes of ONNX compute the same, with a batch of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from deskpro_jax.errors import InputError
from deskpro_jax.serving.program import Input

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

AT = np.array([[3, 1], [0, 2], [9, 9], [-1, 0]], np.int32)  # the third is outside
KERNEL = np.random.default_rng(1).standard_normal((3, 2, 3, 5)).astype(np.float32)
DEPTHWISE = np.random.default_rng(2).standard_normal((3, 3, 1, 3)).astype(np.float32)


def _window(reduce: Any, first: float, window: tuple[int, ...], steps: tuple[int, ...]) -> Callable[[Any], Any]:
    pads = [(0, 0), (1, 1), (0, 1), (0, 0)]
    return lambda x: lax.reduce_window(x, first, reduce, window, steps, pads)


def _convolution(x: Any, kernel: Any, **options: Any) -> Any:
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (2, 1), [(1, 0), (2, 1)], dimension_numbers=dims, **options)


def _sampled(x: Any) -> Any:
    """Looks up positions that depend on the image itself, as grid sampling does."""
    rows = jnp.clip(jnp.floor(jnp.abs(x[:, :, 0, 0]) * 3), 0, 5).astype(jnp.int32)
    return jax.vmap(lambda image, at: image[at, at % 4])(x, rows)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "elementwise": lambda x: jnp.tanh(x) * jax.nn.sigmoid(x) + jnp.exp(-jnp.abs(x)) / (1 + x**2) - jnp.sqrt(x**4) ** 3,
    "compared": lambda x: jnp.where((x > 0.1) & ~(x >= 1) | (x != x), x, jnp.minimum(-x, jnp.maximum(x, 0.3))),
    "clipped": lambda x: jnp.clip(x, -0.5, 0.5) + jnp.floor(x) + jnp.sign(x) + lax.rsqrt(1 + x * x),
    "relu": lambda x: jax.nn.relu(x) + jnp.maximum(0, -x),
    "leaky relu": lambda x: jax.nn.leaky_relu(x) + jax.nn.softplus(x) + jax.nn.gelu(x),
    "sums": lambda x: x.sum((1, 2)) + x.max((1, 2)) - x.min((2, 1)) + x.mean((1, 2)) + x.std((1, 2)),
    "softmax": lambda x: jax.nn.softmax(x, axis=2),
    "argmax": lambda x: jnp.take_along_axis(x, jnp.argmax(x, axis=1, keepdims=True), axis=1),
    "positions": lambda x: jnp.argmax(x, axis=3).astype(jnp.float32),
    "reshaped": lambda x: x.reshape(x.shape[0], 3, -1).swapaxes(1, 2)[:, ::-2, 1:],
    "rows to images": lambda x: (x.reshape(-1, 3) @ np.eye(3, 7, dtype=np.float32)).reshape(-1, 6, 4, 7),
    "batch last": lambda x: x.transpose(1, 2, 3, 0).reshape(6, -1).T.reshape(x.shape[0], -1),
    "both halves": lambda x: jnp.concatenate([x, -x])[x.shape[0] :] + jnp.concatenate([x, -x])[: x.shape[0]],
    "stacked": lambda x: jnp.stack([x, 2 * x], 1).sum(-1),
    "split": lambda x: jnp.split(x, 2, axis=1)[1] * jnp.array_split(x, 2, axis=1)[0],
    "padded": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 1)), constant_values=2.0),
    "mirrored": lambda x: x[:, :, ::-1],
    "product": lambda x: jnp.einsum("bhwc,bgwc->bhg", x, x) + jnp.einsum("bhwc,bhwc->bh", x, x)[..., None],
    "resized": lambda x: jax.image.resize(x, (x.shape[0], 9, 7, 3), "cubic", antialias=True),
    "convolution": lambda x: _convolution(x, KERNEL),
    "dilated": lambda x: _convolution(x, KERNEL, rhs_dilation=(2, 1)),
    "depthwise": lambda x: _convolution(x, DEPTHWISE, feature_group_count=3),
    "max pooling": _window(lax.max, -jnp.inf, (1, 3, 2, 1), (1, 2, 2, 1)),
    "sum pooling": _window(lax.add, 0.0, (1, 2, 2, 1), (1, 1, 2, 1)),
    "looked up": lambda x: x.at[:, AT[:, 0], AT[:, 1]].get(mode="clip"),
    "looked up or filled": lambda x: x.at[:, AT[:, 0], AT[:, 1]].get(mode="fill", fill_value=7.0),
    "sampled": _sampled,
    "constants": lambda x: x + jnp.linspace(0, 1, 3) * jnp.eye(4, 3)[None] @ jnp.ones((3, 3)),
    "zeros of the batch": lambda x: jnp.zeros((x.shape[0], 2)) + x[:, 0, 0, :2],
    "jit and remat": lambda x: jax.checkpoint(jax.jit(lambda y: jnp.sin(y) + jnp.cos(y)))(x),
    "platform": lambda x: lax.platform_dependent(x, cpu=lambda y: y + 1, default=lambda y: 1 + y),
}


def _converted(function: Callable[[Any], Any]) -> Any:
    import onnx
    import onnxruntime

    from deskpro_jax.serving import onnx_graph

    model = onnx_graph.convert(function, [Input("x", "float32", (6, 4, 3))])
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_computes_the_same(name: str) -> None:
    session = _converted(FUNCTIONS[name])
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 6, 4, 3)).astype(np.float32)
        expected = np.asarray(FUNCTIONS[name](jnp.asarray(x)))
        (result,) = session.run(["embeddings"], {"x": x})
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: lax.fori_loop(0, x.shape[1], lambda i, y: y + i, x), "the network uses (scan|while) of jax"),
        (lambda x: jnp.sort(x, axis=1), "the network uses sort of jax"),
        (lambda x: lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0)]), "pads between numbers"),
    ],
)
def test_an_operation_without_a_form_is_named(function: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        _converted(function)
