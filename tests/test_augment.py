"""Mirroring, shifting, colours and erasing on the device: exact, as probable as configured, each row alone."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image, ImageEnhance

import runs
from configs import base
from deskpro_jax.data.load import augment, jitter

H, W, F = 24, 12, 10


def make_batch(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "body": rng.integers(0, 256, (size, H, W, 3), dtype=np.uint8),
        "face": rng.integers(0, 256, (size, F, F, 3), dtype=np.uint8),
        "restored_face": rng.integers(0, 256, (size, F, F, 3), dtype=np.uint8),
        "cloth_mask": rng.integers(0, 2, (size, H, W), dtype=np.uint8),
        "identity": np.arange(size, dtype=np.int32),
        "valid": np.ones(size, bool),
    }


@pytest.fixture
def config() -> ConfigDict:
    return base.get_config().augment


def run(batch: dict[str, np.ndarray], config: ConfigDict, seed: int = 0) -> dict[str, np.ndarray]:
    result = jax.jit(lambda key, images: augment.augment_batch(key, images, config))(jax.random.key(seed), batch)
    return {name: np.asarray(value) for name, value in result.items()}


def erased_pixels(result: np.ndarray, config: ConfigDict) -> np.ndarray:
    fill = (np.array(config.erase_fill) - augment.MEAN) / augment.STD
    return np.isclose(result, fill, atol=1e-6).all(-1)


def test_normalise_is_imagenet() -> None:
    found = np.asarray(augment.normalise(np.full((1, 1, 1, 3), 200, np.uint8)))
    np.testing.assert_allclose(found[0, 0, 0], (200 / 255 - augment.MEAN) / augment.STD, rtol=1e-6)
    assert found.dtype == np.float32


def test_without_augmentation_photos_are_normalised_and_the_rest_is_passed_on(config: ConfigDict) -> None:
    config.flip = config.erase = 0.0
    batch = make_batch(4)
    result = run(batch, config)
    for name in batch:
        expected = np.asarray(augment.normalise(batch[name])) if batch[name].ndim == 4 else batch[name]
        np.testing.assert_allclose(result[name], expected, rtol=1e-6, atol=1e-6)
    evaluated = augment.normalise_batch(batch)
    assert evaluated["identity"] is batch["identity"]
    np.testing.assert_allclose(evaluated["face"], result["face"], rtol=1e-6, atol=1e-6)


def test_body_faces_and_mask_are_mirrored_together_half_of_the_time(config: ConfigDict) -> None:
    config.erase = 0.0
    batch = make_batch(1000)
    result = run(batch, config)
    flips = {}
    for name in ("body", "face", "restored_face", "cloth_mask"):
        straight = np.asarray(augment.normalise(batch[name])) if batch[name].ndim == 4 else batch[name]
        axes = tuple(range(1, straight.ndim))
        flips[name] = np.isclose(result[name], straight[:, :, ::-1], atol=1e-6).all(axes)
        same = np.isclose(result[name], straight, atol=1e-6).all(axes)
        assert (flips[name] ^ same).all()
        np.testing.assert_array_equal(flips[name], flips["body"])
    assert flips["body"].mean() == pytest.approx(0.5, abs=0.05)


def test_erasing_hits_each_kind_by_itself_with_the_probability_and_never_the_mask(config: ConfigDict) -> None:
    config.flip, config.erase = 0.0, 0.3
    batch = make_batch(2000)
    result = run(batch, config)
    hit = {n: erased_pixels(result[n], config).any((1, 2)) for n in ("body", "face", "restored_face")}
    for name, found in hit.items():
        assert found.mean() == pytest.approx(0.3, abs=0.04), name
    assert (hit["body"] & hit["face"]).mean() == pytest.approx(0.09, abs=0.025)
    assert (hit["face"] & hit["restored_face"]).mean() == pytest.approx(0.09, abs=0.025)
    np.testing.assert_array_equal(result["cloth_mask"], batch["cloth_mask"])
    kept = ~erased_pixels(result["body"], config)
    np.testing.assert_allclose(result["body"][kept], np.asarray(augment.normalise(batch["body"]))[kept], atol=1e-6)


def masks(height: int, width: int, config: ConfigDict, count: int) -> np.ndarray:
    keys = jax.random.split(jax.random.key(3), count)
    return np.asarray(jax.vmap(lambda key: augment.erasing(key, height, width, config))(keys))


def test_what_is_erased_is_a_rectangle_of_the_configured_area_and_shape(config: ConfigDict) -> None:
    config.erase = 1.0
    found = masks(384, 128, config, 500)
    heights, widths = found.any(2).sum(1), found.any(1).sum(1)
    np.testing.assert_array_equal(found.sum((1, 2)), heights * widths)
    area, ratio = heights * widths / (384 * 128), heights / widths
    assert area.min() > 0.018
    assert area.max() < 0.41
    assert area.max() > 0.36
    assert ratio.min() > 0.28
    assert ratio.max() < 3.5
    assert widths.max() < 128


def test_the_area_is_uniform_and_the_place_too(config: ConfigDict) -> None:
    config.erase, config.erase_ratio = 1.0, 1.0
    found = masks(100, 100, config, 2000)
    area = found.mean((1, 2))
    quartiles = np.quantile(area, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.115, 0.21, 0.305], atol=0.02)
    side = found.any(2).sum(1)
    place = found.any(2).argmax(1) / (100 - side)
    np.testing.assert_allclose(np.quantile(place, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)
    assert place.min() == 0
    assert place.max() == 1


def test_a_rectangle_that_cannot_fit_is_not_drawn(config: ConfigDict) -> None:
    config.erase, config.erase_ratio, config.erase_area = 1.0, 1.0, (0.9, 0.95)
    assert not masks(100, 20, config, 50).any()


def test_a_row_depends_on_the_key_and_its_place_alone(config: ConfigDict) -> None:
    batch = make_batch(8)
    whole = run(batch, config)
    part = run({name: value[:4] for name, value in batch.items()}, config)
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name][:4])
    only = run({"face": batch["face"]}, config)
    np.testing.assert_array_equal(only["face"], whole["face"])
    assert not np.array_equal(run(batch, config, seed=1)["body"], whole["body"])


def test_rows_of_a_batch_draw_differently(config: ConfigDict) -> None:
    config.erase = 1.0
    batch = {"body": np.zeros((32, H, W, 3), np.uint8)}
    erased = erased_pixels(run(batch, config)["body"], config)
    assert len({mask.tobytes() for mask in erased}) > 28


def test_the_result_does_not_depend_on_the_number_of_devices(config: ConfigDict) -> None:
    program = """
import hashlib, json, sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from configs import base
from deskpro_jax.data.load import augment, jitter
config = base.get_config().augment
images = np.random.default_rng(0).integers(0, 256, (16, 24, 12, 3), dtype=np.uint8)
digests = []
for count in (1, 8):
    mesh = jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])
    batch = {"body": jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))}
    result = jax.jit(lambda key, batch: augment.augment_batch(key, batch, config))(jax.random.key(5), batch)["body"]
    assert len(result.sharding.device_set) == count, result.sharding
    digests.append(hashlib.sha256(np.asarray(result).tobytes()).hexdigest())
print(json.dumps(digests))
"""
    code, out, err = runs.finish(runs.start(["-c", program], devices=8))
    assert code == 0, err
    one, eight = json.loads(out.splitlines()[-1])
    assert one == eight


def test_dtype_of_every_photo_is_float32(config: ConfigDict) -> None:
    result = run(make_batch(2), config)
    assert {result[name].dtype for name in ("body", "face", "restored_face")} == {jnp.dtype("float32")}
    assert result["cloth_mask"].dtype == np.uint8


def test_padding_and_cropping_shift_photo_and_mask_by_the_same_and_fill_with_black(config: ConfigDict) -> None:
    config.flip = config.erase = 0.0
    config.pad = 3
    batch = make_batch(200)
    result = run(batch, config)
    shifts = set()
    for row in range(200):
        padded = np.pad(batch["body"][row], ((3, 3), (3, 3), (0, 0)))
        mask = np.pad(batch["cloth_mask"][row], 3, constant_values=1)  # what is not there is no clothing
        photo = result["body"][row]
        (top, left), *others = [
            (y, x)
            for y in range(7)
            for x in range(7)
            if np.allclose(photo, augment.normalise(padded[None, y : y + H, x : x + W])[0], atol=1e-6)
        ]
        assert not others
        np.testing.assert_array_equal(result["cloth_mask"][row], mask[top : top + H, left : left + W])
        shifts.add((top, left))
    assert {top for top, _ in shifts} == {left for _, left in shifts} == set(range(7))


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3), dtype=np.uint8)


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.8, 0.93, 1.0, 1.15, 2.0])
def test_brightness_contrast_and_saturation_are_pillows(factor: float) -> None:
    image = Image.fromarray(photo())
    for ours, theirs in (
        (jitter.with_brightness, ImageEnhance.Brightness),
        (jitter.with_contrast, ImageEnhance.Contrast),
        (jitter.with_saturation, ImageEnhance.Color),
    ):
        np.testing.assert_array_equal(ours(photo(), factor), np.asarray(theirs(image).enhance(factor)))


@pytest.mark.parametrize("turn", [0, 1, 25, 128, -25])
def test_the_hue_turns_by_way_of_pillows_hsv(turn: int) -> None:
    image = photo(2)
    image[:8] = image[:8, :, :1]  # grey
    image[8:16, :, 1] = image[8:16, :, 0]  # two colours alike
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    turned = Image.fromarray((np.asarray(hue).astype(int) + turn).astype(np.uint8))
    expected = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    np.testing.assert_array_equal(jitter.with_hue(jnp.asarray(image), turn), np.asarray(expected))


def test_four_changes_of_colour_come_in_any_order() -> None:
    keys = jax.random.split(jax.random.key(0), 40)
    image = jnp.broadcast_to(jnp.asarray(photo(1)), (40, H, W, 3))
    changed = np.asarray(jitter.jitter(image, keys, 0.1, 0.1, 0.1, 0.1))
    assert len({values.tobytes() for values in changed}) == 40
    assert np.abs(changed.astype(int) - np.asarray(image)).mean() < 40
    np.testing.assert_array_equal(changed[7:8], jitter.jitter(image[:1], keys[7:8], 0.1, 0.1, 0.1, 0.1))
    turned = np.asarray(jitter.jitter(image, keys, 0.0, 0.0, 0.0, 0.1))
    np.testing.assert_array_equal(turned.max(-1), np.asarray(image).max(-1))  # a hue has nothing to do with the value


def test_colour_jitter_draws_factors_and_order_for_each_row_by_itself() -> None:
    keys = jax.random.split(jax.random.key(0), 300)
    photos = jnp.broadcast_to(jnp.asarray(np.full((H, W, 3), 100, np.uint8)), (300, H, W, 3))
    brighter = np.asarray(jitter.jitter(photos, keys, 0.2, 0.0))[:, 0, 0, 0]
    assert 80 <= brighter.min() < 84
    assert 115 < brighter.max() <= 120
    assert abs(brighter.mean() - 99.5) < 1.5
    np.testing.assert_array_equal(jitter.jitter(photos, keys, 0.0, 0.4), photos)  # an even photo has no contrast
    image = jnp.broadcast_to(jnp.asarray(photo(1)), (300, H, W, 3))
    changed = np.asarray(jitter.jitter(image, keys, 0.5, 0.5))
    assert len({values.tobytes() for values in changed}) == 300
    np.testing.assert_array_equal(changed[7:8], jitter.jitter(image[:1], keys[7:8], 0.5, 0.5))


def test_faces_of_a_row_get_the_colours_of_its_photo_and_masks_none(config: ConfigDict) -> None:
    config.flip = config.erase = 0.0
    config.brightness = 0.5
    batch = make_batch(6)
    for name in ("body", "face"):
        batch[name][:] = 100
    result = run(batch, config)
    np.testing.assert_array_equal(result["body"][:, 0, 0], result["face"][:, 0, 0])
    assert len(set(result["body"][:, 0, 0, 0].tolist())) > 1
    np.testing.assert_array_equal(result["cloth_mask"], batch["cloth_mask"])
