"""Photos are enlarged for the detector, and its boxes become faces: suppressed, bounded, the best one chosen."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from data_prep.detection import detect, postprocess, preprocess
from data_prep.detection.postprocess import Detections
from deskpro_jax.errors import InputError

# --- canvases


@pytest.mark.parametrize(
    ("size", "factor"),
    [
        ((128, 64), 4),
        ((202, 128), 2),
        ((256, 128), 2),
        ((170, 60), 4),
        ((171, 60), 3),
        ((512, 256), 1),
        ((100, 256), 1),
        ((1024, 400), 1),
        ((1025, 400), 1 / 2),
        ((1080, 810), 1 / 2),
        ((4000, 3000), 1 / 6),
        ((1, 1), 4),
    ],
)
def test_the_smaller_a_photo_the_more_it_is_enlarged(size: tuple[int, int], factor: float) -> None:
    assert preprocess.choose_factor(*size) == factor
    canvas = preprocess.enlarge(np.zeros((*size, 3), np.uint8))
    assert canvas.shape[0] % 32 == canvas.shape[1] % 32 == 0
    assert canvas.shape[:2] == preprocess.canvas_size(*size, factor)
    assert -0.5 <= canvas.shape[0] - size[0] * factor <= 32
    assert -0.5 <= canvas.shape[1] - size[1] * factor <= 32


def test_an_enlarged_photo_keeps_its_places_and_the_rest_is_zero_for_the_network() -> None:
    image = np.zeros((20, 12, 3), np.uint8)
    image[5:10, 4:6] = (250, 130, 10)
    canvas = preprocess.enlarge(image, 3, (64, 64))
    np.testing.assert_array_equal(canvas[18:27, 13:17], np.broadcast_to(np.uint8([250, 130, 10]), (9, 4, 3)))
    assert not canvas[:13, :36].any()
    x = np.asarray(preprocess.normalise(canvas[None]))[0]
    assert not x[60:].any()
    assert not x[:, 36:].any()
    np.testing.assert_array_equal(x[20, 15], np.float32([10, 130, 250]) - np.float32([104, 117, 123]))
    np.testing.assert_array_equal(preprocess.enlarge(image, 1, (20, 12)), image)


def test_photos_that_cannot_be_enlarged_are_refused() -> None:
    image = np.zeros((20, 12, 3), np.uint8)
    with pytest.raises(InputError, match="20x12 pixels, enlarged by 4, does not fit a canvas of 64x64"):
        preprocess.enlarge(image, 4, (64, 64))
    with pytest.raises(InputError, match="is 0; expected more than 0"):
        preprocess.enlarge(image, 0)
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(InputError, match="expected RGB uint8"):
            preprocess.enlarge(wrong, 2)


# --- faces


def faces(*found: tuple[float, float, float, float, float]) -> Detections:
    """Makes faces of (left, top, right, bottom, score)."""
    table = np.asarray(found, np.float32).reshape(-1, 5)
    marks = np.repeat(table[:, None, :2], 5, 1)
    return Detections(table[:, :4], table[:, 4], marks)


def test_faces_on_the_canvas_become_faces_on_the_photo() -> None:
    found = faces((30, 60, 90, 150, 0.9)).scaled(1 / 3, 1 / 2)
    np.testing.assert_allclose(found.boxes, [[10, 30, 30, 75]], rtol=1e-6)
    np.testing.assert_allclose(found.landmarks[0], [[10, 30]] * 5, rtol=1e-6)
    assert found.scores == np.float32(0.9)
    assert found.boxes.dtype == found.landmarks.dtype == np.float32


def test_boxes_include_their_last_pixel() -> None:
    # 10x10 and 10x10 pixels that share 10x6: 0.43 of their union; as differences of coordinates 9x5 / 117 = 0.38.
    boxes = np.float32([[0, 0, 9, 9], [0, 4, 9, 13]])
    assert postprocess.suppress(boxes, np.float32([0.9, 0.8])).tolist() == [0]
    # 10x4 of 160 are exactly a quarter: what equals the threshold stays.
    boxes = np.float32([[0, 0, 9, 9], [0, 6, 9, 15]])
    assert postprocess.suppress(boxes, np.float32([0.8, 0.9]), 0.25).tolist() == [1, 0]
    assert postprocess.suppress(boxes, np.float32([0.8, 0.9]), 0.2499).tolist() == [1]


def test_a_suppressed_box_suppresses_none_and_of_equals_the_first_stays() -> None:
    boxes = np.float32([[0, 0, 9, 9], [0, 4, 9, 13], [0, 8, 9, 17]])
    assert postprocess.suppress(boxes, np.float32([0.9, 0.8, 0.7])).tolist() == [0, 2]
    assert postprocess.suppress(boxes[[0, 0]], np.float32([0.5, 0.5])).tolist() == [0]
    assert postprocess.suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)).tolist() == []


def test_thresholds_and_counts_bound_what_is_kept() -> None:
    apart = np.float32([[20 * i, 0, 20 * i + 9, 9] for i in range(6)])
    scores = np.float32([0.02, 0.5, 0.03, 0.9, 0.019, 0.7])
    raw = detect.Raw(apart[None], scores[None], np.zeros((1, 6, 5, 2), np.float32))
    kept = lambda **settings: postprocess.detections(raw, **settings)[0].scores.tolist()  # noqa: E731
    by_score = np.sort(scores)[::-1].tolist()
    assert kept() == by_score[:4]  # 0.02 itself does not count
    assert kept(score_threshold=0.6) == by_score[:2]
    assert kept(top_k=3) == by_score[:3]
    assert kept(keep_top_k=1) == by_score[:1]
    assert kept(score_threshold=0.95) == []
    close = np.float32([[i, 0, i + 9, 9] for i in range(6)])
    few = postprocess.detections(raw._replace(boxes=close[None]), top_k=2, keep_top_k=2)[0]
    assert few.scores.tolist() == by_score[:1]  # the second best of the two suppressed, a third did not enter


def test_a_batch_without_faces_gives_empty_lists() -> None:
    raw = detect.Raw(np.zeros((2, 4, 4)), np.zeros((2, 4)), np.zeros((2, 4, 5, 2)))
    found = postprocess.detections(raw)
    assert [len(each) for each in found] == [0, 0]
    assert [each.boxes.shape for each in found] == [(0, 4), (0, 4)]
    assert found[0].landmarks.shape == (0, 5, 2)
    assert postprocess.best_face(found[0], 256, 128) is None


def test_the_best_face_is_the_surest_one_where_a_head_can_be() -> None:
    body, head, unsure, edge = (
        (40, 110, 80, 160, 0.99),
        (50, 10, 75, 40, 0.8),
        (55, 15, 70, 30, 0.55),
        (0, 0, 16, 20, 0.97),
    )
    best = functools.partial(postprocess.best_face, height=256, width=128)
    assert best(faces(body, edge, head, unsure)) == 2
    assert best(faces(body, edge, head, unsure), min_score=0.9) is None
    assert best(faces(body, edge, head, unsure), head_side=0.0) == 1
    assert best(faces(body, edge, head, unsure), head_bottom=0.6) == 0
    assert best(faces(unsure, head)) == 1
    assert best(faces(body)) is None
    assert best(faces((50, 10, 75, 40, 0.5))) == 0
    assert best(faces((50, 10, 75, 40, 0.49))) is None
    assert best(faces((50, -60, 75, -10, 0.9))) is None
