"""Faces are cut out of photos in the restorer's frame, to the last bit as the published code does."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import data_prep_golden as golden
from data_prep.restoration.align import align, lanczos, similarity, template
from deskpro_jax.errors import InputError

SIZE = 64


def waves(height: int, width: int, phase: float = 3.0) -> np.ndarray:
    """Returns the photo of the golden cases [height, width, 3]: two plane waves a channel."""
    y, x = np.mgrid[:height, :width, :1][:2] * 2 * np.pi
    y, x, c = y / height, x / width, np.arange(3)
    one = np.sin((c + 1) * y + (c + 2) * x / 1.7 + phase + c)
    other = np.cos((2 * c + 1) * y / 1.3 - (c + 1) * x + phase)
    return (127.5 + 63.75 * (one + other)).astype(np.uint8)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def turned(degrees: float, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Returns the template's points turned around the middle of the frame, scaled and moved."""
    angle, middle = np.deg2rad(degrees), (SIZE - 1) / 2
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (template(SIZE) - middle) @ rotation.T * scale + middle + shift


def golden_photo(data: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the photo of a golden file, which holds every tenth pixel of it."""
    height, width = (10 * size for size in data["img_formula_check"].shape[:2])
    photo = waves(height, width)
    if not np.array_equal(photo[::10, ::10], data["img_formula_check"]):
        pytest.skip("the photo of these cases is another")
    return photo


def test_the_frame_is_the_published_one() -> None:
    data, _ = golden.arrays("gpen_align.npz")
    for key in (key for key in data if key.startswith("ref5_")):
        np.testing.assert_allclose(template(int(key.removeprefix("ref5_"))), data[key], rtol=1e-12, err_msg=key)


def test_golden_faces_agree_bit_by_bit() -> None:
    data, _ = golden.arrays("gpen_align.npz")
    photo = golden_photo(data)
    cases = [key.removesuffix("_pts") for key in data if key.endswith("_pts")]
    assert cases
    for case in cases:
        face = data[f"{case}_face_sub4"]
        size = 4 * len(face)
        matrix = similarity(data[f"{case}_pts"], size)
        # The published code works in float32, and LAPACKs differ in the last bit.
        np.testing.assert_allclose(matrix, data[f"{case}_tfm"], rtol=1e-6, atol=1e-6, err_msg=case)
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        np.testing.assert_allclose(inverse, data[f"{case}_tfm_inv"], rtol=1e-6, atol=1e-5, err_msg=case)
        np.testing.assert_array_equal(align(photo, data[f"{case}_pts"], size)[::4, ::4], face, err_msg=case)


@pytest.mark.parametrize("cut", [align, lanczos])
def test_a_photo_in_the_frame_already_stays_as_it_is(cut) -> None:
    photo = noise(SIZE, SIZE)
    difference = cut(photo, template(SIZE), SIZE).astype(int) - photo
    assert np.abs(difference).max() <= 1  # the frame's float32 points move it by 1e-6 pixels


@pytest.mark.parametrize("cut", [align, lanczos])
def test_a_turned_photo_gives_the_same_face(cut) -> None:
    photo = waves(100, 90)
    points = turned(10, 0.7, (8.3, 21.6))
    upside_down = [photo.shape[1] - 1, photo.shape[0] - 1] - points
    quarter = np.stack([points[:, 1], photo.shape[1] - 1 - points[:, 0]], 1)
    expected = cut(photo, points, SIZE).astype(int)
    for other, landmarks in ((photo[::-1, ::-1], upside_down), (np.rot90(photo), quarter)):
        found = cut(np.ascontiguousarray(other), landmarks, SIZE)
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("degrees", [0, 37, 90, 180, 300])
def test_the_similarity_undoes_turn_scale_and_shift(degrees: float) -> None:
    points = turned(degrees, 0.3, (40.0, -7.5))
    matrix = similarity(points, SIZE)
    found = points @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(found, template(SIZE), atol=1e-3)
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(0.3**-2, rel=1e-5)


def test_a_mirrored_face_is_turned_at_most() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = turned(rng.uniform(0, 360)) * [-1, 1] + rng.normal(0, 3, (5, 2))
        rotation = similarity(points, SIZE)[:, :2]
        scale = np.sqrt(np.linalg.det(rotation))
        np.testing.assert_allclose(rotation @ rotation.T, scale**2 * np.eye(2), atol=1e-5)


def test_the_similarity_is_the_best_there_is() -> None:
    points = turned(25, 0.4, (30, 30)) + np.random.default_rng(2).normal(0, 1.5, (5, 2))
    best = similarity(points, SIZE)

    def distance(turn: complex, shift: complex) -> float:
        return float((np.abs(turn * (points @ [1, 1j]) + shift - template(SIZE) @ [1, 1j]) ** 2).sum())

    turn, shift = complex(best[0, 0], best[1, 0]), complex(best[0, 2], best[1, 2])
    lowest = distance(turn, shift)
    for step in (1e-2, -1e-2, 1e-2j, -1e-2j):
        assert distance(turn + step, shift - step * points.mean(0) @ [1, 1j]) > lowest
        assert distance(turn, shift + 10 * step) > lowest


def test_the_frame_goes_black_where_the_photo_ends() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    points = turned(20, 0.5, (12, -15))
    face, enlarged = align(white, points, SIZE), lanczos(white, points, SIZE)
    assert 0.1 < (face == 0).mean() < 0.9
    np.testing.assert_array_equal(face, enlarged)
    for cut in (align, lanczos):
        assert not cut(white, points + 1e5, SIZE).any()
        assert not cut(white, points - 1e5, SIZE).any()


def test_lanczos_comes_closer_to_the_photo_than_bilinear() -> None:
    original = Image.fromarray(noise(32, 32)).resize((256, 256), Image.Resampling.BICUBIC)
    small, photo = np.asarray(original.reduce(4)), np.asarray(original)
    landmarks = (template(256) + 0.5) / 4 - 0.5  # pixel centres of the reduced photo
    inner = slice(16, -16)
    errors = [np.abs(cut(small, landmarks, 256).astype(int) - photo)[inner, inner].mean() for cut in (align, lanczos)]
    assert errors[1] < 0.9 * errors[0]


def test_both_ways_show_the_same_frame() -> None:
    photo = waves(120, 90)
    points = turned(-30, 0.35, (12, 40))
    bilinear, enlarged = (cut(photo, points, SIZE).astype(float) for cut in (align, lanczos))
    assert np.abs(bilinear - enlarged).mean() < 2
    moved = lanczos(photo, points + np.array([1, 0]), SIZE)
    assert np.abs(bilinear - moved).mean() > 5


@pytest.mark.parametrize("cut", [align, lanczos])
def test_landmarks_that_are_no_face_are_refused(cut) -> None:
    photo = noise(20, 20)
    for points in (
        np.full((5, 2), 7.0),
        np.full((5, 2), np.nan),
        template(SIZE)[:4],
        template(SIZE).ravel(),
        np.full((5, 2), np.inf),
        template(SIZE) * 1e9,
    ):
        with pytest.raises(InputError, match="landmarks"):
            cut(photo, points, SIZE)
    with pytest.raises(InputError, match="size"):
        cut(photo, template(SIZE), 0)


@pytest.mark.parametrize(
    "photo",
    [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)],
)
def test_what_is_no_rgb_photo_is_refused(photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="photo"):
        align(photo, template(SIZE), SIZE)
