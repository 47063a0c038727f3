"""LightMBN's seven parts come from the right maps, its top-drop block drops only in training, CSA weighs the trunk."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers, lmbn
from deskpro_jax.models.attention import FORMS, SpatialAttention

BATCH, CLASSES, DIM, WIDTH = 4, 5, 16, 128
SIZE = (48, 32)  # three rows in the last maps: an odd height
ALL, LAST_IS_PADDING, NONE = np.ones(BATCH, bool), np.arange(BATCH) < BATCH - 1, np.zeros(BATCH, bool)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def fast_jit(function: Any) -> Any:
    """Compiles without LLVM's optimisations, which take most of the time for functions that run once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


class Stream(NamedTuple):
    variables: Any
    evaluate: Any  # (variables, images) -> outputs, intermediates
    train: Any  # (variables, images, valid) -> (outputs, intermediates), moved variables


def module(**options: Any) -> lmbn.LightMBN:
    return lmbn.LightMBN(CLASSES, "x0_25", attention="paper", feature_dim=DIM, **options)


@pytest.fixture(scope="module")
def stream() -> Stream:
    """A narrow stream with attention, whose neck and running statistics are not those of a fresh one."""
    model, x = module(), jnp.zeros((1, *SIZE, 3))
    variables = initialisers.draw(lambda key: model.init(key, x, train=False), 0)
    rng = np.random.default_rng(1)
    for name in ("scale", "bias"):
        variables["params"]["neck"][name] = rng.uniform(0.5, 1.5, (7, DIM)).astype(np.float32)
    for name in ("mean", "var"):
        variables["batch_stats"]["neck"][name] = rng.uniform(0.5, 1.5, (7, DIM)).astype(np.float32)
    variables["params"]["classifier"]["kernel"] = normal(2, 7, DIM, CLASSES)
    return Stream(
        variables,
        fast_jit(lambda v, x: model.apply(v, x, train=False)),
        fast_jit(lambda v, x, valid: model.apply(v, x, train=True, valid=valid, mutable=["batch_stats"])),
    )


@pytest.fixture(scope="module")
def evaluated(stream: Stream) -> tuple[Any, Any]:
    return stream.evaluate(stream.variables, normal(0, BATCH, *SIZE, 3))


@pytest.fixture(scope="module")
def trained(stream: Stream) -> Any:
    return stream.train(stream.variables, normal(0, BATCH, *SIZE, 3), ALL)


def test_outputs_and_intermediates_have_the_stated_names_and_shapes(evaluated: tuple[Any, Any]) -> None:
    outputs, middle = evaluated
    assert {name: value.shape for name, value in outputs.items()} == {
        "logits": (7, BATCH, CLASSES),
        "features": (7, BATCH, DIM),
        "embeddings": (7, BATCH, DIM),
    }
    assert {name: value.shape for name, value in middle.items()} == {
        "trunk": (BATCH, 6, 4, 96),
        "refined": (BATCH, 6, 4, 96),
        "attention": (BATCH, 6, 4),
        "branches": (3, BATCH, 3, 2, WIDTH),
        "dropped": (BATCH, 3, 2, WIDTH),
    }


def parts_by_hand(params: Any, global_map: Any, middle: Any) -> dict[str, np.ndarray]:
    """Part features in front of the necks, straight from the maps, by name."""
    _, part, channel = np.asarray(middle["branches"])
    pooled = {
        "global": np.asarray(global_map).mean((1, 2)),
        "global_drop": np.asarray(middle["dropped"]).max((1, 2)),
        "part_max": part.max((1, 2)),
        # Halves of three rows: PyTorch's adaptive pooling counts the middle one in both.
        "part_top": part[:, :2].mean((1, 2)),
        "part_bottom": part[:, 1:].mean((1, 2)),
    }
    kernel = np.asarray(params["reduction"]["kernel"])
    reduced = {name: value @ kernel[i] for i, (name, value) in enumerate(pooled.items())}
    averaged = channel.mean((1, 2))
    shared = params["shared"]["conv"]["kernel"]
    halves = {f"channel_{i}": averaged[:, i * WIDTH // 2 : (i + 1) * WIDTH // 2] @ shared for i in range(2)}
    return {**reduced, **halves}


def test_the_seven_parts_come_in_order_from_their_maps(stream: Stream, evaluated: tuple[Any, Any]) -> None:
    outputs, middle = evaluated
    expected = parts_by_hand(stream.variables["params"], middle["dropped"], middle)
    assert tuple(expected) == lmbn.PARTS
    for part, name in enumerate(lmbn.PARTS):
        value = expected[name]
        if name.startswith("channel"):  # through a fresh BatchNorm (mean 0, variance 1) and ReLU
            value = np.maximum(value / np.sqrt(1 + 1e-5), 0)
        np.testing.assert_allclose(outputs["features"][part], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_triplet_parts_are_global_global_drop_and_part_max() -> None:
    assert [lmbn.PARTS[i] for i in lmbn.TRIPLET_PARTS] == ["global", "global_drop", "part_max"]


def test_necks_normalise_the_features_and_classifiers_read_the_embeddings(
    stream: Stream, evaluated: tuple[Any, Any]
) -> None:
    outputs, _ = evaluated
    neck, stats = stream.variables["params"]["neck"], stream.variables["batch_stats"]["neck"]
    mean, var = stats["mean"][:, None], stats["var"][:, None]
    scaled = (np.asarray(outputs["features"]) - mean) / np.sqrt(var + 1e-5) * neck["scale"][:, None]
    np.testing.assert_allclose(outputs["embeddings"], scaled + neck["bias"][:, None], rtol=1e-4, atol=1e-5)
    kernel = stream.variables["params"]["classifier"]["kernel"]
    expected = np.einsum("pbd,pdc->pbc", outputs["embeddings"], kernel)
    np.testing.assert_allclose(outputs["logits"], expected, rtol=1e-4, atol=1e-4)


def test_in_training_the_necks_use_the_statistics_of_the_batch(stream: Stream, trained: Any) -> None:
    (outputs, _), _ = trained
    features = np.asarray(outputs["features"], np.float64)
    mean, var = features.mean(1, keepdims=True), features.var(1, keepdims=True)
    neck = stream.variables["params"]["neck"]
    expected = (features - mean) / np.sqrt(var + 1e-5) * neck["scale"][:, None] + neck["bias"][:, None]
    np.testing.assert_allclose(outputs["embeddings"], expected, rtol=1e-2, atol=1e-3)


def test_attention_multiplies_the_trunk(stream: Stream, evaluated: tuple[Any, Any]) -> None:
    _, middle = evaluated
    attention = np.asarray(middle["attention"])
    assert ((attention > 0) & (attention < 1)).all()
    assert np.ptp(attention) > 0.01
    np.testing.assert_allclose(middle["refined"], middle["trunk"] * attention[..., None], rtol=1e-6)


def test_the_top_drop_block_drops_only_in_training(evaluated: tuple[Any, Any], trained: Any) -> None:
    empty_rows = lambda maps: (np.asarray(maps) == 0).all((2, 3)).sum(1)  # noqa: E731
    (_, middle), _ = trained
    assert (empty_rows(middle["dropped"]) == 1).all()  # round(0.33 * 3 rows)
    assert (empty_rows(evaluated[1]["dropped"]) == 0).all()


def test_drop_top_zeroes_the_rows_with_the_largest_energy_of_one_position() -> None:
    # Energies, largest in each row: 9, 8, 2, 16, 1, 5. A third of six rows, rounded, is two: rows 0 and 3.
    x = jnp.asarray(
        [
            [[3.0, 0.0], [0.0, 0.0]],
            [[2.0, 2.0], [2.0, 2.0]],  # the largest sum over the row, but not at one position
            [[1.0, 1.0], [1.0, 1.0]],
            [[0.0, 0.0], [0.0, -4.0]],
            [[1.0, 0.0], [0.0, 0.0]],
            [[2.0, 1.0], [0.0, 0.0]],
        ]
    )[None]
    kept = np.array([0, 1, 1, 0, 1, 1.0])[None, :, None, None]
    drop = jax.jit(lambda x: lmbn.drop_top(x, 0.33))
    np.testing.assert_array_equal(drop(x), x * kept)
    grad = jax.grad(lambda x: drop(x).sum())(x)
    np.testing.assert_array_equal(grad, np.broadcast_to(kept, x.shape))


@pytest.mark.parametrize(("height", "ratio", "dropped"), [(24, 0.33, 8), (14, 0.33, 5), (4, 0.33, 1), (3, 0.0, 0)])
def test_drop_top_drops_a_share_of_the_rows_rounded_and_each_image_its_own(
    height: int, ratio: float, dropped: int
) -> None:
    x = np.abs(normal(0, 6, height, 2, 3)) + 0.1
    rows = (np.asarray(jax.jit(lambda x: lmbn.drop_top(x, ratio))(x)) == 0).all((2, 3))
    strongest = np.argsort((x**2).sum(-1).max(-1), axis=1)[:, height - dropped :]
    assert (rows.sum(1) == dropped).all()
    for image in range(6):
        assert set(np.flatnonzero(rows[image])) == set(strongest[image])


def test_rows_that_are_padding_move_no_statistics_and_change_no_other_row(stream: Stream) -> None:
    x = normal(0, BATCH, *SIZE, 3)
    padded = x.copy()
    padded[~LAST_IS_PADDING] = 5.0
    (outputs, _), moved = stream.train(stream.variables, x, LAST_IS_PADDING)
    (again, _), moved_again = stream.train(stream.variables, padded, LAST_IS_PADDING)
    jax.tree.map(np.testing.assert_array_equal, moved, moved_again)
    for name in outputs:
        np.testing.assert_array_equal(outputs[name][:, LAST_IS_PADDING], again[name][:, LAST_IS_PADDING])
        assert (outputs[name][:, ~LAST_IS_PADDING] != again[name][:, ~LAST_IS_PADDING]).any()
    _, all_count = stream.train(stream.variables, x, ALL)
    assert (all_count["batch_stats"]["neck"]["mean"] != moved["batch_stats"]["neck"]["mean"]).any()


def test_a_batch_without_a_valid_row_moves_no_statistics_and_stays_finite(stream: Stream) -> None:
    (outputs, _), moved = stream.train(stream.variables, normal(0, BATCH, *SIZE, 3), NONE)
    jax.tree.map(np.testing.assert_array_equal, moved["batch_stats"], stream.variables["batch_stats"])
    for name, value in outputs.items():
        assert np.isfinite(value).all(), name
        assert np.abs(value).max() < 100, name


def test_a_training_step_moves_every_running_statistic(stream: Stream, trained: Any) -> None:
    _, moved = trained
    changed = jax.tree.map(
        lambda a, b: bool((np.asarray(a) != b).any()), moved["batch_stats"], stream.variables["batch_stats"]
    )
    assert all(jax.tree.leaves(changed))


def test_bfloat16_computes_nearly_the_same_and_keeps_parameters_statistics_and_outputs_in_float32(
    stream: Stream, evaluated: tuple[Any, Any]
) -> None:
    model, x = module(dtype=jnp.bfloat16), normal(0, BATCH, *SIZE, 3)
    low = fast_jit(lambda v, x: model.apply(v, x, train=False))
    outputs, middle = low(stream.variables, x)
    for name in ("logits", "features", "embeddings"):
        assert outputs[name].dtype == jnp.float32
    assert all(value.dtype == jnp.bfloat16 for value in middle.values())
    exact = np.asarray(evaluated[0]["features"])
    features = np.asarray(outputs["features"])
    cosine = (features * exact).sum(-1) / np.linalg.norm(features, axis=-1) / np.linalg.norm(exact, axis=-1)
    assert cosine.min() > 0.999
    np.testing.assert_allclose(features, exact, atol=0.03 * np.abs(exact).max())
    variables = meta.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    _, moved = jax.eval_shape(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"]), variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_of_attention_weigh_every_position_between_zero_and_one(form: str) -> None:
    attention, x = SpatialAttention(form), jnp.asarray(normal(0, 2, 4, 3, 32))
    params = meta.unbox(fast_jit(attention.init)(jax.random.key(0), x))["params"]
    output: Any = fast_jit(attention.apply)({"params": params}, x)
    refined, weights = output
    flat = np.asarray(x, np.float64)
    if form == "paper":
        assert jax.tree.map(jnp.shape, params) == {"conv": {"kernel": (32, 1), "bias": (1,)}}
        score = flat @ params["conv"]["kernel"] + params["conv"]["bias"]
    else:
        assert jax.tree.map(jnp.shape, params) == {"conv1": {"kernel": (32, 32)}, "conv2": {"kernel": (32, 1)}}
        score = np.maximum(flat @ params["conv1"]["kernel"], 0) @ params["conv2"]["kernel"]
    assert weights.shape == (2, 4, 3)
    assert ((weights > 0) & (weights < 1)).all()
    np.testing.assert_allclose(weights, 1 / (1 + np.exp(-score[..., 0])), rtol=1e-5)
    np.testing.assert_allclose(refined, x * weights[..., None], rtol=1e-6)


def test_an_unknown_form_of_attention_is_an_error_that_names_the_field() -> None:
    with pytest.raises(InputError, match=r"model\.attention is 'papr'; expected one of paper, released or none"):
        SpatialAttention("papr").init(jax.random.key(0), jnp.zeros((1, 2, 2, 4)))
