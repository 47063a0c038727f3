"""People get the garments of others: colours of one other person, from about the same height; all else stays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deskpro_jax.data.load import pixel_sampling

BATCH, HEIGHT, WIDTH = 5, 8, 4
IDENTITY = np.array([0, 0, 1, 1, 2])


def photos() -> Any:
    """Returns photos each of whose pixels has a number of its own, and maps of their garments."""
    images = np.arange(BATCH * HEIGHT * WIDTH * 3, dtype=np.float32).reshape(BATCH, HEIGHT, WIDTH, 3)
    garments = np.random.default_rng(0).integers(0, 3, (BATCH, HEIGHT, WIDTH)).astype(np.uint8)
    garments[3][garments[3] == 2] = 0  # one without trousers
    return images, garments


sampled = jax.jit(pixel_sampling.sample, static_argnames="form")


def test_a_garment_has_the_colours_of_the_same_garment_of_one_other_person() -> None:
    images, garments = photos()
    valid = np.array([True, True, True, True, False])
    result = np.asarray(sampled(jax.random.key(1), images, garments, IDENTITY, valid))
    np.testing.assert_array_equal(result[garments == 0], images[garments == 0])
    person = lambda pixels: np.unique(pixels[:, 0].astype(int) // (HEIGHT * WIDTH * 3))  # noqa: E731
    for row in range(BATCH):
        for label in pixel_sampling.GARMENTS:
            pixels = result[row][garments[row] == label]
            if len(pixels):
                (source,) = person(pixels)
                assert IDENTITY[source] != IDENTITY[row]
                assert valid[source]
                allowed = images[source][garments[source] == label]
                assert {tuple(pixel) for pixel in pixels} <= {tuple(pixel) for pixel in allowed}  # whole pixels
                assert (np.diff(pixels[:, 0]) >= 0).all()  # from top to bottom


def test_a_garment_that_nobody_else_wears_stays() -> None:
    images, garments = photos()
    only = np.where((garments == 2) & (np.arange(BATCH) != 0)[:, None, None], 0, garments)
    result = np.asarray(sampled(jax.random.key(1), images, only, IDENTITY, np.ones(BATCH, bool)))
    np.testing.assert_array_equal(result[only == 2], images[only == 2])


def test_a_map_of_the_same_size_takes_every_pixel_once() -> None:
    images, _ = photos()
    garments = np.zeros((BATCH, HEIGHT, WIDTH), np.uint8)
    garments[:, 2:5, 1:3] = 1
    sources = np.stack([np.roll(np.arange(BATCH), 2), np.arange(BATCH)])
    result = np.asarray(jax.jit(pixel_sampling.regions)(images, garments, sources))
    np.testing.assert_array_equal(result[:, 2:5, 1:3], images[sources[0]][:, 2:5, 1:3])


def test_the_released_form_permutes_all_values_of_a_garment() -> None:
    images, garments = photos()
    result = np.asarray(sampled(jax.random.key(3), images, garments, IDENTITY, np.ones(BATCH, bool), form="released"))
    for label in (0, *pixel_sampling.GARMENTS):
        here = garments == label
        np.testing.assert_array_equal(np.sort(result[here], axis=None), np.sort(images[here], axis=None))
    assert (result != images)[garments > 0].mean() > 0.5


def test_compiled_and_not_compiled_agree() -> None:
    images, garments = photos()
    arguments = jax.random.key(4), jnp.asarray(images), jnp.asarray(garments), IDENTITY, np.ones(BATCH, bool)
    np.testing.assert_array_equal(sampled(*arguments), pixel_sampling.sample(*arguments))
