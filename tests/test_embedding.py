"""Embeddings: order, unit length of parts, mirrored average, zeros for missing faces, never a NaN."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import StreamSpec
from deskpro_jax.models.embeddings import combine, normalise

PARTS, BATCH, DIMENSION = 7, 3, 16
PART_NAMES = tuple(f"part_{i}" for i in range(PARTS))
FACE_FIRST = ("face", "body")
BOTH = tuple(StreamSpec(name, name, PART_NAMES, (0,), DIMENSION) for name in FACE_FIRST)


@pytest.fixture
def streams():
    random = np.random.default_rng(0)
    image, mirror = (
        {name: jnp.asarray(random.normal(size=(PARTS, BATCH, DIMENSION)), jnp.float32) for name in ("body", "face")}
        for _ in range(2)
    )
    return image, mirror, jnp.array([True, False, True])


def by_hand(image, mirror, has_face):
    rows = []
    for b in range(BATCH):
        row = []
        for name in ("face", "body"):
            for p in range(PARTS):
                part = np.asarray(image[name], np.float64)[p, b]
                if mirror is not None:
                    part = part + np.asarray(mirror[name], np.float64)[p, b]
                row.append(0 * part if name == "face" and not has_face[b] else part / np.linalg.norm(part))
        rows.append(np.concatenate(row))
    return np.stack(rows)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_embedding_is_the_normalised_sum_face_first(streams, flip, wrap):
    image, mirror, has_face = streams
    mirror = mirror if flip else None
    result = wrap(functools.partial(combine, BOTH))(image, mirror, has_face=has_face)
    assert result.dtype == jnp.float32
    assert result.shape == (BATCH, 2 * PARTS * DIMENSION)
    np.testing.assert_allclose(result, by_hand(image, mirror, has_face), atol=2e-7)


def test_every_part_has_unit_length_and_a_missing_face_is_zero(streams):
    image, mirror, has_face = streams
    lengths = np.linalg.norm(
        np.asarray(combine(BOTH, image, mirror, has_face=has_face)).reshape(BATCH, 14, DIMENSION), axis=2
    )
    np.testing.assert_allclose(lengths[:, 7:], 1, atol=1e-6)
    np.testing.assert_allclose(lengths[[0, 2], :7], 1, atol=1e-6)
    assert not lengths[1, :7].any()


def test_one_stream_alone(streams):
    image, mirror, has_face = streams
    both = combine(BOTH, image, mirror, has_face=has_face)
    half = PARTS * DIMENSION
    face = combine(BOTH[:1], {"face": image["face"]}, {"face": mirror["face"]}, has_face=has_face)
    body = combine(BOTH[1:], {"body": image["body"]}, {"body": mirror["body"]})
    np.testing.assert_allclose(jnp.concatenate([face, body], axis=1), both, atol=1e-7)
    assert face.shape == body.shape == (BATCH, half)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_a_missing_face_never_makes_a_nan_whatever_its_features_are(streams, wrap):
    image, _, has_face = streams
    for value in (0.0, np.nan, np.inf):
        image["face"] = image["face"].at[:, 1].set(value)
        result = np.asarray(wrap(functools.partial(combine, BOTH))(image, has_face=has_face))
        assert np.isfinite(result).all()
        assert not result[1, : PARTS * DIMENSION].any()


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-38, 1e-30, 1e30, 1e37])
def test_extreme_features_stay_finite(scale):
    vectors = jnp.asarray(np.float32(scale)) * jnp.array([[1.0, -1.0, 0.5, 0.0]], jnp.float32)
    for function in (normalise, jax.jit(normalise)):
        result = np.asarray(function(vectors))
        assert np.isfinite(result).all()
        if scale > 1e-37:
            np.testing.assert_allclose(result, [[2 / 3, -2 / 3, 1 / 3, 0]], atol=1e-6)


def test_bfloat16_features_are_added_and_normalised_in_float32(streams):
    image, mirror, has_face = (jax.tree.map(lambda x: x.astype(jnp.bfloat16), s) for s in streams[:2]), None, streams[2]
    image, mirror = image
    result = combine(BOTH, image, mirror, has_face=has_face)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, by_hand(image, mirror, has_face), atol=2e-7)


@pytest.mark.parametrize(
    ("streams", "arguments", "message"),
    [
        ((), ({},), "expected those of any"),
        (BOTH[1:], ({"hand": jnp.ones((7, 1, 2))},), "'hand'"),
        (BOTH[1:], ({"body": jnp.ones((7, 1, 2))}, {}), r"features of streams \[\]; expected those of body"),
        (BOTH[:1], ({"face": jnp.ones((7, 1, 2))},), "without has_face"),
    ],
)
def test_bad_streams_are_refused(streams, arguments, message):
    with pytest.raises(InputError, match=message):
        combine(streams, *arguments)


@pytest.mark.parametrize("flip", [False, True])
def test_features_as_they_are_keep_their_length(streams, flip):
    image, mirror, has_face = streams
    result = combine(BOTH, image, mirror if flip else None, has_face=has_face, unit=False)
    mirror = mirror if flip else image
    features = [(np.asarray(image[name]) + np.asarray(mirror[name])) / 2 for name in FACE_FIRST]
    features[0] = np.where(np.asarray(has_face)[None, :, None], features[0], 0)
    expected = np.concatenate([np.moveaxis(np.asarray(one), 0, 1).reshape(BATCH, -1) for one in features], axis=1)
    np.testing.assert_allclose(result, expected, atol=1e-6)
