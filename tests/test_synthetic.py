"""The synthetic dataset: repeatable, well-formed, and hard in the ways that cloth-changing re-ID is hard."""

from __future__ import annotations

import collections
import dataclasses
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from benchmarks.drawn_people import baselines
from deskpro_jax.data.schema import SCHEMES, SPLITS, Example
from deskpro_jax.data.synthetic.camera import make_cameras
from deskpro_jax.data.synthetic.canvas import Canvas, ellipse, limb, smooth
from deskpro_jax.data.synthetic.generate import SIZES, SyntheticSize, draw_person, generate
from deskpro_jax.data.synthetic.person import BUILD_RANGES, FACE_RANGES, GAIT_RANGES, HAIR_RANGES
from deskpro_jax.data.synthetic.render import render
from deskpro_jax.errors import InputError

FACE = SCHEMES["lip"].labels.index("face")
HAIR = SCHEMES["lip"].labels.index("hair")


def _open(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file))


@pytest.fixture(scope="module")
def tiny() -> list[tuple[str, Example]]:
    return list(generate("tiny", seed=0))


@pytest.fixture(scope="module")
def medium() -> list[tuple[str, Example]]:
    """Forty test identities, enough for retrieval figures that hold still."""
    SIZES["medium"] = SyntheticSize(1, 1, 40, 80, 200)
    try:
        return [pair for pair in generate("medium", seed=1) if pair[0] != "train"]
    finally:
        del SIZES["medium"]


@pytest.fixture(scope="module")
def scores(medium: list[tuple[str, Example]]) -> dict[str, tuple[float, float]]:
    """mAP and chance of each baseline."""
    return baselines(medium)


def test_sizes_are_the_published_numbers() -> None:
    assert dataclasses.astuple(SIZES["full"]) == (490, 9021, 100, 887, 934)
    for plan in SIZES.values():
        assert sum(plan.images("train", k) for k in range(plan.train_identities)) == plan.train_images
        assert sum(plan.images("query", k) for k in range(plan.test_identities)) == plan.query_images
        assert sum(plan.images("gallery", k) for k in range(plan.test_identities)) == plan.gallery_images
    counts = [SIZES["full"].images("train", k) for k in range(490)]
    assert set(counts) == {18, 19}


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(tiny: list[tuple[str, Example]]) -> None:
    assert list(generate("tiny", seed=0, workers=2)) == tiny


def test_another_seed_gives_other_people(tiny: list[tuple[str, Example]]) -> None:
    other = next(generate("tiny", seed=1))[1]
    assert other.body != tiny[0][1].body
    assert draw_person(0, True, 0) != draw_person(1, True, 0)
    assert draw_person(0, True, 0) != draw_person(0, False, 0)


def test_people_and_images_do_not_depend_on_the_size(tiny: list[tuple[str, Example]]) -> None:
    assert list(itertools.islice(generate("small", seed=0), 3)) == tiny[:3]


def test_splits_come_in_order_with_their_counts(tiny: list[tuple[str, Example]]) -> None:
    splits = [split for split, _ in tiny]
    assert splits == ["train"] * 48 + ["query"] * 8 + ["gallery"] * 16
    assert set(splits) == set(SPLITS)


def test_names_identities_and_clothes(tiny: list[tuple[str, Example]]) -> None:
    examples = [example for _, example in tiny]
    assert len({e.image_id for e in examples}) == len(examples)
    assert len({(e.identity, e.clothes) for e in examples}) == len(examples), "an outfit is worn twice"
    for example in examples:
        pid, camera, frame = example.image_id.split("_")
        assert (int(pid), camera, len(frame)) == (example.identity, f"c{example.camera}", 6)
        assert 1 <= example.camera <= 6
    people = {split: {e.identity for s, e in tiny if s == split} for split in SPLITS}
    assert people["query"] == people["gallery"]
    assert not people["train"] & people["query"]
    assert {min(e.clothes for e in examples if e.identity == pid) for pid in people["train"] | people["query"]} == {0}


def test_every_query_has_its_person_in_another_camera(medium: list[tuple[str, Example]]) -> None:
    gallery = {(e.identity, e.camera) for split, e in medium if split == "gallery"}
    for split, query in medium:
        if split == "query":
            assert any(pid == query.identity and camera != query.camera for pid, camera in gallery)


def test_images_have_their_formats_and_sizes(tiny: list[tuple[str, Example]]) -> None:
    for _, example in tiny:
        body = _open(example.body)
        assert (body.format, body.mode, body.size) == ("JPEG", "RGB", (128, 256))
        assert example.parts is not None
        parts = _open(example.parts)
        assert (parts.format, parts.mode, parts.size) == ("PNG", "L", (128, 256))
        labels = np.asarray(parts)
        assert labels.max() < len(SCHEMES["lip"].labels)
        assert 0.08 < (labels > 0).mean() < 0.6
        assert (example.face is None) == (example.restored_face is None)
        if example.face is not None and example.restored_face is not None:
            face, restored = _open(example.face), _open(example.restored_face)
            assert face.mode == restored.mode == "RGB"
            assert face.size[0] == face.size[1]
            assert 20 <= face.size[0] <= 46
            assert restored.size == (112, 112)


def test_a_face_is_there_exactly_when_the_labels_show_one(medium: list[tuple[str, Example]]) -> None:
    for _, example in medium:
        assert example.parts is not None
        seen = np.asarray(_open(example.parts)) == FACE
        assert (example.face is not None) == bool(seen.sum() > 60)
        assert example.face is not None or not seen.any()


def test_ten_to_fifteen_percent_show_no_face(medium: list[tuple[str, Example]]) -> None:
    missing = np.mean([example.face is None for _, example in medium])
    assert 0.08 <= missing <= 0.17  # 280 images: the share itself is one in eight


def test_faces_are_about_twenty_pixels_high(medium: list[tuple[str, Example]]) -> None:
    heights = []
    for _, example in medium:
        if example.face is not None and example.parts is not None:
            rows = np.flatnonzero((np.asarray(_open(example.parts)) == FACE).any(axis=1))
            heights.append(rows.max() - rows.min() + 1)
    assert 17 <= np.median(heights) <= 25


def test_the_face_is_cut_out_of_the_body_picture(tiny: list[tuple[str, Example]]) -> None:
    for _, example in tiny[:12]:
        if example.face is None:
            continue
        body, face = np.asarray(_open(example.body)), np.asarray(_open(example.face))
        side = len(face)
        windows = np.lib.stride_tricks.sliding_window_view(body[:120], (side, side, 3))[:, :, 0]
        assert (windows == face).all(axis=(2, 3, 4)).any()


def test_the_restored_face_shows_the_same_framing(tiny: list[tuple[str, Example]]) -> None:
    faces = [e for _, e in tiny if e.face is not None and e.restored_face is not None]
    small = [np.asarray(_open(e.face or b"").convert("L").resize((28, 28)), np.float32).ravel() for e in faces]
    crisp = [np.asarray(_open(e.restored_face or b"").convert("L").resize((28, 28)), np.float32).ravel() for e in faces]
    agreement = np.corrcoef(np.stack(small), np.stack(crisp))[: len(faces), len(faces) :]
    own, other = np.diag(agreement), agreement[~np.eye(len(faces), dtype=bool)]
    assert np.median(own) > 0.8
    assert np.median(own) > np.median(other) + 0.3


def test_labels_lie_on_what_was_drawn(tiny: list[tuple[str, Example]]) -> None:
    """Hair is of one colour: a label map moved by a few pixels would mix it with face and background."""
    aligned: list[float] = []
    shifted: list[float] = []
    for _, example in tiny:
        assert example.parts is not None
        picture = np.asarray(_open(example.body), np.float32)
        labels = np.asarray(_open(example.parts))
        for moved, results in ((labels, aligned), (np.roll(labels, (5, 4), (0, 1)), shifted)):
            results.append(picture[moved == HAIR].std(axis=0).mean())
    assert np.mean(aligned) < 0.75 * np.mean(shifted)


def test_left_and_right_swap_on_a_back_view(medium: list[tuple[str, Example]]) -> None:
    shoes: dict[bool, list[bool]] = {True: [], False: []}
    for _, example in medium:
        assert example.parts is not None
        labels = np.asarray(_open(example.parts))
        if (labels == 18).sum() > 20 and (labels == 19).sum() > 20:
            left, right = np.nonzero(labels == 18)[1].mean(), np.nonzero(labels == 19)[1].mean()
            shoes[example.face is None].append(left > right)
    assert np.mean(shoes[False]) > 0.9, "facing us, the left shoe is on the right"
    assert np.mean(shoes[True]) < 0.1


def test_all_lip_clothes_are_worn_by_somebody(medium: list[tuple[str, Example]]) -> None:
    seen: set[int] = set()
    for _, example in medium:
        seen |= set(np.unique(np.asarray(_open(example.parts or b""))).tolist())
    assert seen == set(range(20))


def test_identity_is_geometry_of_many_continuous_traits() -> None:
    assert len(FACE_RANGES) >= 12
    people = [draw_person(0, True, k) for k in range(60)]
    for ranges, part in ((FACE_RANGES, "face"), (HAIR_RANGES, "hair"), (BUILD_RANGES, "build"), (GAIT_RANGES, "gait")):
        for name, (low, high) in ranges.items():
            values = np.array([getattr(getattr(person, part), name) for person in people])
            assert low <= values.min()
            assert values.max() <= high
            assert len(set(values.tolist())) == len(people), f"{part}.{name} is not continuous"
            assert values.std() > 0.2 * (high - low)


def test_colours_come_in_few_kinds_that_many_people_share() -> None:
    people = [draw_person(0, True, k) for k in range(200)]
    for name in ("skin", "hair_colour", "brow_colour", "iris", "beard"):
        kinds = collections.Counter(getattr(person, name) for person in people)
        assert len(kinds) <= 3
        assert min(kinds.values()) > 20


def test_what_tells_faces_apart_is_seen_in_restored_faces_rather_than_in_photos() -> None:
    """One trait at its lowest and at its highest, else the same: the photo hides what the restored face shows."""
    person, camera = draw_person(0, True, 3), make_cameras(np.random.default_rng(0))[2]
    seed = next(k for k in range(9) if render(person, camera, np.random.default_rng(k)).face)
    changes = {"face": [], "restored_face": []}
    for trait in ("eye_opening", "brow_thickness", "nose_width", "lip_fullness", "creases", "freckles", "mole_x"):
        drawn = []
        for value in FACE_RANGES[trait]:
            other = dataclasses.replace(person, face=dataclasses.replace(person.face, **{trait: value}))
            drawn.append(render(other, camera, np.random.default_rng(seed)))
        for name, values in changes.items():
            pair = [np.asarray(_open(getattr(one, name)), np.float32) for one in drawn]
            # Of the size of the photo's face, against the noise of a camera.
            values.append(float(np.abs(pair[0] - pair[1]).max()))
    assert np.mean(changes["restored_face"]) > 2 * np.mean(changes["face"])


@pytest.mark.parametrize(
    ("baseline", "bound"),
    [
        ("colours of the clothes", 1.4),
        ("pixels of the photo, 32 x 64", 1.5),
        ("mean colour of the face", 2.0),
        ("mean colour of the restored face", 2.0),
        ("pixels of the face, 32 x 32", 3.6),
        ("pixels of the restored face, 32 x 32", 3.6),
    ],
)
def test_colours_and_pixels_say_little_about_identity(
    scores: dict[str, tuple[float, float]], baseline: str, bound: float
) -> None:
    score, chance = scores[baseline]
    assert score < bound * chance


@pytest.mark.parametrize(
    ("size", "seed", "workers", "message"),
    [("huge", 0, 0, "tiny, small, full"), ("tiny", -1, 0, "0 or greater"), ("tiny", 0, -2, "0 or greater")],
)
def test_wrong_requests_are_explained(size: str, seed: int, workers: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(size, seed, workers)


def test_a_canvas_labels_exactly_the_pixels_it_colours() -> None:
    shapes = (ellipse(20.3, 18.8, 9.5, 6.2, 0.4), limb(np.array([8.0, 9]), np.array([33.0, 40]), 4, 2))
    for shape in (*shapes, smooth(np.array([(5, 5), (40, 9), (30, 44.5), (9.2, 30)]))):
        for paint in ((200, 10, 10), Image.new("RGB", (48, 48), (200, 10, 10))):
            canvas = Canvas(Image.new("RGB", (48, 48)), 0, scale=1.07, origin=(1.3, 0.4), angle=0.1)
            canvas.fill(shape, paint, 5)
            painted = np.asarray(canvas.colour)[..., 0] > 0
            assert painted.sum() > 100
            assert np.array_equal(painted, np.asarray(canvas.labels) == 5)
